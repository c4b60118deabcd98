package naiad.client;

/** The server refused a call: the HTTP status or the name of the gRPC code, and the server's own words. */
public class Refused extends RuntimeException {
    private final String status;

    public Refused(String status, String message) {
        super(message);
        this.status = status;
    }

    public String status() {
        return status;
    }
}
