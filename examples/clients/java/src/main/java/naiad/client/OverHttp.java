package naiad.client;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonSyntaxException;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** A client of the v2 protocol over HTTP. Any number of threads may use it. */
public final class OverHttp {
    private static final String JSON_LENGTH = "Inference-Header-Content-Length";
    private static final Gson GSON = new Gson();

    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final String url;
    private final String key;

    /** A server such as http://127.0.0.1:8000, and an API key, or an empty string. */
    public OverHttp(String url, String key) {
        this.url = url;
        this.key = key;
    }

    public Health health() throws IOException, InterruptedException {
        return new Health(
                send(request("/v2/health/live")).statusCode() == 200,
                send(request("/v2/health/ready")).statusCode() == 200);
    }

    /** What a model takes. */
    public List<Signature> inputs(String model) throws IOException, InterruptedException {
        JsonObject metadata = json(succeed(request("/v2/models/" + model)).body());
        List<Signature> found = new ArrayList<>();
        for (JsonElement input : metadata.getAsJsonArray("inputs")) {
            found.add(GSON.fromJson(input, Signature.class));
        }
        return found;
    }

    /** Sends FP32 tensors as JSON numbers, for bodies that a person reads. */
    public List<Tensor> inferJson(String model, List<Tensor> inputs) throws IOException, InterruptedException {
        JsonArray sent = new JsonArray();
        for (Tensor tensor : inputs) {
            JsonObject input = described(tensor);
            input.add("data", GSON.toJsonTree(tensor.floats()));
            sent.add(input);
        }
        JsonObject body = new JsonObject();
        body.add("inputs", sent);
        HttpRequest.Builder request = request("/v2/models/" + model + "/infer");
        request.POST(HttpRequest.BodyPublishers.ofString(GSON.toJson(body)));
        List<Tensor> outputs = new ArrayList<>();
        for (JsonElement output : json(succeed(request).body()).getAsJsonArray("outputs")) {
            Signature signature = GSON.fromJson(output, Signature.class);
            float[] values = GSON.fromJson(output.getAsJsonObject().get("data"), float[].class);
            outputs.add(Tensor.of(signature.name(), signature.shape(), values));
        }
        return outputs;
    }

    /** Sends tensors as bytes behind the JSON, of any datatype, and asks for the same. */
    public List<Tensor> infer(String model, List<Tensor> inputs) throws IOException, InterruptedException {
        JsonArray sent = new JsonArray();
        for (Tensor tensor : inputs) {
            JsonObject size = new JsonObject();
            size.addProperty("binary_data_size", tensor.bytes().length);
            JsonObject input = described(tensor);
            input.add("parameters", size);
            sent.add(input);
        }
        JsonObject body = new JsonObject();
        body.add("inputs", sent);
        JsonObject parameters = new JsonObject();
        parameters.addProperty("binary_data_output", true); // counts because no outputs are listed
        body.add("parameters", parameters);
        byte[] head = GSON.toJson(body).getBytes(StandardCharsets.UTF_8);
        List<byte[]> parts = new ArrayList<>(List.of(head));
        inputs.forEach(tensor -> parts.add(tensor.bytes()));
        HttpRequest.Builder request = request("/v2/models/" + model + "/infer");
        request.header(JSON_LENGTH, String.valueOf(head.length));
        request.POST(HttpRequest.BodyPublishers.ofByteArrays(parts));
        return cut(succeed(request));
    }

    /** Gives each output its bytes: they follow the JSON in the order of the outputs. */
    private static List<Tensor> cut(HttpResponse<byte[]> response) {
        byte[] body = response.body();
        int length = (int) response.headers().firstValueAsLong(JSON_LENGTH).orElse(body.length);
        ByteBuffer tail = ByteBuffer.wrap(body, length, body.length - length);
        List<Tensor> outputs = new ArrayList<>();
        for (JsonElement output : json(Arrays.copyOf(body, length)).getAsJsonArray("outputs")) {
            Signature signature = GSON.fromJson(output, Signature.class);
            JsonObject parameters = output.getAsJsonObject().getAsJsonObject("parameters");
            byte[] bytes = new byte[parameters.get("binary_data_size").getAsInt()];
            tail.get(bytes);
            outputs.add(new Tensor(signature.name(), signature.datatype(), signature.shape(), bytes));
        }
        return outputs;
    }

    private static JsonObject described(Tensor tensor) {
        return GSON.toJsonTree(new Signature(tensor.name(), tensor.datatype(), tensor.shape())).getAsJsonObject();
    }

    private static JsonObject json(byte[] body) {
        return JsonParser.parseString(new String(body, StandardCharsets.UTF_8)).getAsJsonObject();
    }

    private HttpRequest.Builder request(String path) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path)).timeout(Duration.ofMinutes(1));
        return key.isEmpty() ? request : request.header("X-API-Key", key);
    }

    private HttpResponse<byte[]> send(HttpRequest.Builder request) throws IOException, InterruptedException {
        return client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
    }

    private HttpResponse<byte[]> succeed(HttpRequest.Builder request) throws IOException, InterruptedException {
        HttpResponse<byte[]> response = send(request);
        if (response.statusCode() != 200) {
            throw new Refused(String.valueOf(response.statusCode()), words(response.body()));
        }
        return response;
    }

    /** The server's words; the body itself where it is something else, as a proxy's may be. */
    private static String words(byte[] body) {
        try {
            return json(body).get("error").getAsString();
        } catch (JsonSyntaxException | IllegalStateException | NullPointerException notOurs) {
            return new String(body, StandardCharsets.UTF_8);
        }
    }
}
