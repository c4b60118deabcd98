package naiad.client;

import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceStub;
import inference.GrpcService.ModelInferRequest;
import inference.GrpcService.ModelInferResponse;
import inference.GrpcService.ModelMetadataRequest;
import inference.GrpcService.ModelMetadataResponse.TensorMetadata;
import inference.GrpcService.ModelStreamInferResponse;
import inference.GrpcService.ServerLiveRequest;
import inference.GrpcService.ServerReadyRequest;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** A client of the v2 protocol over gRPC. Any number of threads may use it. */
public final class OverGrpc implements AutoCloseable {
    private final ManagedChannel channel;
    private final Metadata headers = new Metadata();

    /** A server such as 127.0.0.1:8001, and an API key, or an empty string. */
    public OverGrpc(String address, String key) {
        // By default a client refuses answers over 4 MB.
        channel = ManagedChannelBuilder.forTarget(address).usePlaintext().maxInboundMessageSize(Integer.MAX_VALUE).build();
        if (!key.isEmpty()) {
            headers.put(Metadata.Key.of("x-api-key", Metadata.ASCII_STRING_MARSHALLER), key);
        }
    }

    @Override
    public void close() throws InterruptedException {
        channel.shutdown().awaitTermination(10, TimeUnit.SECONDS);
    }

    public Health health() {
        return asked(() -> new Health(
                blocking().serverLive(ServerLiveRequest.getDefaultInstance()).getLive(),
                blocking().serverReady(ServerReadyRequest.getDefaultInstance()).getReady()));
    }

    /** What a model takes. */
    public List<Signature> inputs(String model) {
        ModelMetadataRequest request = ModelMetadataRequest.newBuilder().setName(model).build();
        List<Signature> found = new ArrayList<>();
        for (TensorMetadata input : asked(() -> blocking().modelMetadata(request)).getInputsList()) {
            found.add(new Signature(input.getName(), input.getDatatype(), input.getShapeList()));
        }
        return found;
    }

    /** Sends one request and waits for its answer. */
    public List<Tensor> infer(String model, List<Tensor> inputs) {
        return outputs(asked(() -> blocking().modelInfer(request(model, "", inputs))));
    }

    /** One request of a stream. */
    public record Request(String id, List<Tensor> inputs) {}

    /** One reply of a stream: an error in place of outputs does not end the stream. */
    public record Reply(String id, String error, List<Tensor> outputs) {}

    /** Sends all requests on one stream and hands over each reply as it comes; returns when the stream has ended. */
    public void stream(String model, List<Request> requests, Consumer<Reply> receive) {
        CompletableFuture<Void> ended = new CompletableFuture<>();
        GRPCInferenceServiceStub stub = prepared(GRPCInferenceServiceGrpc.newStub(channel));
        StreamObserver<ModelInferRequest> sender = stub.modelStreamInfer(new StreamObserver<>() {
            @Override
            public void onNext(ModelStreamInferResponse message) {
                ModelInferResponse response = message.getInferResponse();
                receive.accept(new Reply(response.getId(), message.getErrorMessage(), outputs(response)));
            }

            @Override
            public void onError(Throwable error) {
                ended.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {
                ended.complete(null);
            }
        });
        requests.forEach(each -> sender.onNext(request(model, each.id(), each.inputs())));
        sender.onCompleted();
        try {
            ended.join();
        } catch (java.util.concurrent.CompletionException failed) {
            throw refused(Status.fromThrowable(failed.getCause()));
        }
    }

    private static ModelInferRequest request(String model, String id, List<Tensor> inputs) {
        ModelInferRequest.Builder request = ModelInferRequest.newBuilder().setModelName(model).setId(id);
        for (Tensor tensor : inputs) {
            request.addInputsBuilder()
                    .setName(tensor.name())
                    .setDatatype(tensor.datatype())
                    .addAllShape(tensor.shape());
            request.addRawInputContents(ByteString.copyFrom(tensor.bytes())); // one per input, in the same order
        }
        return request.build();
    }

    private static List<Tensor> outputs(ModelInferResponse response) {
        List<Tensor> outputs = new ArrayList<>();
        for (int i = 0; i < Math.min(response.getOutputsCount(), response.getRawOutputContentsCount()); i++) {
            ModelInferResponse.InferOutputTensor output = response.getOutputs(i);
            byte[] bytes = response.getRawOutputContents(i).toByteArray();
            outputs.add(new Tensor(output.getName(), output.getDatatype(), output.getShapeList(), bytes));
        }
        return outputs;
    }

    private GRPCInferenceServiceBlockingStub blocking() {
        return prepared(GRPCInferenceServiceGrpc.newBlockingStub(channel));
    }

    /** Each call carries the key and a deadline that the server sees too. */
    private <S extends AbstractStub<S>> S prepared(S stub) {
        return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
                .withDeadlineAfter(1, TimeUnit.MINUTES);
    }

    private static <T> T asked(Supplier<T> call) {
        try {
            return call.get();
        } catch (StatusRuntimeException error) {
            throw refused(error.getStatus());
        }
    }

    private static Refused refused(Status status) {
        return new Refused(status.getCode().name(), status.getDescription());
    }
}
