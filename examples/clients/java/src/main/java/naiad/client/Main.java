package naiad.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Sends the handwritten digit of examples/mnist over HTTP and gRPC and prints which digit the server sees. */
public final class Main {
    private static final String MODEL = setting("MODEL", "mnist-cnn");
    private static final String KEY = setting("KEY", "");

    private Main() {}

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Tensor pixels = readDigit(Path.of("../../mnist/request.json"));
        // The same bytes under a datatype that the model does not take.
        Tensor wrong = new Tensor(pixels.name(), "INT32", pixels.shape(), pixels.bytes());
        overHttp(pixels, wrong);
        overGrpc(pixels, wrong);
    }

    private static void overHttp(Tensor pixels, Tensor wrong) throws IOException, InterruptedException {
        OverHttp server = new OverHttp(setting("URL", "http://127.0.0.1:8000"), KEY);
        describe("http", server.health(), server.inputs(MODEL));
        System.out.println("http json: " + digit(server.inferJson(MODEL, List.of(pixels))));
        System.out.println("http binary: " + digit(server.infer(MODEL, List.of(pixels))));
        try {
            server.infer(MODEL, List.of(wrong));
        } catch (Refused refused) {
            System.out.println("http error: " + refused.status() + " " + refused.getMessage());
        }
    }

    private static void overGrpc(Tensor pixels, Tensor wrong) throws InterruptedException {
        try (OverGrpc server = new OverGrpc(setting("GRPC", "127.0.0.1:8001"), KEY)) {
            describe("grpc", server.health(), server.inputs(MODEL));
            System.out.println("grpc infer: " + digit(server.infer(MODEL, List.of(pixels))));
            try {
                server.infer(MODEL, List.of(wrong));
            } catch (Refused refused) {
                System.out.println("grpc error: " + refused.status() + " " + refused.getMessage());
            }
            List<OverGrpc.Request> requests = List.of(
                    new OverGrpc.Request("1", List.of(pixels)),
                    new OverGrpc.Request("2", List.of(wrong)),
                    new OverGrpc.Request("3", List.of(pixels)));
            server.stream(MODEL, requests, Main::show);
        }
    }

    private static void show(OverGrpc.Reply reply) {
        if (reply.error().isEmpty()) {
            System.out.println("grpc stream: request " + reply.id() + ": " + digit(reply.outputs()));
        } else {
            System.out.println("grpc stream: refused: " + reply.error());
        }
    }

    private static void describe(String protocol, Health health, List<Signature> inputs) {
        System.out.println(protocol + " health: live " + health.live() + ", ready " + health.ready());
        for (Signature input : inputs) {
            String tensor = input.name() + " " + input.datatype() + " " + input.shape();
            System.out.println(protocol + " metadata: " + MODEL + " takes " + tensor);
        }
    }

    private static String digit(List<Tensor> outputs) {
        float[] scores = outputs.get(0).floats();
        int best = 0;
        for (int i = 1; i < scores.length; i++) {
            best = scores[i] > scores[best] ? i : best;
        }
        return "the digit is " + best;
    }

    private static Tensor readDigit(Path file) throws IOException {
        JsonObject request = JsonParser.parseString(Files.readString(file)).getAsJsonObject();
        JsonObject input = request.getAsJsonArray("inputs").get(0).getAsJsonObject();
        List<Long> shape = new ArrayList<>();
        input.getAsJsonArray("shape").forEach(dim -> shape.add(dim.getAsLong()));
        List<Float> pixels = new ArrayList<>();
        flatten(input.getAsJsonArray("data"), pixels);
        float[] values = new float[pixels.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = pixels.get(i);
        }
        return Tensor.of(input.get("name").getAsString(), shape, values);
    }

    /** Data may be nested in any way; only the order of the numbers counts. */
    private static void flatten(JsonArray data, List<Float> into) {
        for (JsonElement each : data) {
            if (each.isJsonArray()) {
                flatten(each.getAsJsonArray(), into);
            } else {
                into.add(each.getAsFloat());
            }
        }
    }

    private static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }
}
