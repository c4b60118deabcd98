package naiad.client;

/** Whether the server lives and whether it is ready. */
public record Health(boolean live, boolean ready) {}
