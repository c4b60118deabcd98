#include "grpc_client.hpp"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <limits>
#include <thread>

#include "grpc_service.grpc.pb.h"

namespace naiad {

namespace {

// The names of the codes as the protocol writes them; the index is the number on the wire.
constexpr const char* kCodes[] = {"OK",
                                  "CANCELLED",
                                  "UNKNOWN",
                                  "INVALID_ARGUMENT",
                                  "DEADLINE_EXCEEDED",
                                  "NOT_FOUND",
                                  "ALREADY_EXISTS",
                                  "PERMISSION_DENIED",
                                  "RESOURCE_EXHAUSTED",
                                  "FAILED_PRECONDITION",
                                  "ABORTED",
                                  "OUT_OF_RANGE",
                                  "UNIMPLEMENTED",
                                  "INTERNAL",
                                  "UNAVAILABLE",
                                  "DATA_LOSS",
                                  "UNAUTHENTICATED"};

void check(const grpc::Status& status) {
  if (!status.ok()) throw Error(kCodes[status.error_code()], status.error_message());
}

inference::ModelInferRequest request_of(const std::string& model, const std::vector<Tensor>& inputs) {
  inference::ModelInferRequest request;
  request.set_model_name(model);
  for (const Tensor& tensor : inputs) {
    auto* input = request.add_inputs();
    input->set_name(tensor.name);
    input->set_datatype(tensor.datatype);
    for (const std::int64_t dim : tensor.shape) input->add_shape(dim);
    request.add_raw_input_contents(tensor.bytes);  // one entry per input, in the same order
  }
  return request;
}

std::vector<Tensor> outputs_of(const inference::ModelInferResponse& response) {
  std::vector<Tensor> outputs;
  for (int i = 0; i < response.outputs_size() && i < response.raw_output_contents_size(); ++i) {
    const auto& output = response.outputs(i);
    outputs.push_back({output.name(),
                       output.datatype(),
                       {output.shape().begin(), output.shape().end()},
                       response.raw_output_contents(i)});
  }
  return outputs;
}

}  // namespace

struct GrpcClient::Channel {
  std::string key;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub;

  // Each call gets a context of its own: the key, and a deadline that the server sees too.
  std::unique_ptr<grpc::ClientContext> context() const {
    auto made = std::make_unique<grpc::ClientContext>();
    if (!key.empty()) made->AddMetadata("x-api-key", key);
    made->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return made;
  }
};

GrpcClient::GrpcClient(const std::string& address, std::string key) : channel_(std::make_unique<Channel>()) {
  grpc::ChannelArguments arguments;  // by default a client refuses answers over 4 MB
  arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  channel_->key = std::move(key);
  channel_->stub = inference::GRPCInferenceService::NewStub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

GrpcClient::~GrpcClient() = default;

Health GrpcClient::health() {
  inference::ServerLiveResponse live;
  inference::ServerReadyResponse ready;
  check(channel_->stub->ServerLive(channel_->context().get(), {}, &live));
  check(channel_->stub->ServerReady(channel_->context().get(), {}, &ready));
  return {live.live(), ready.ready()};
}

std::vector<Signature> GrpcClient::inputs(const std::string& model) {
  inference::ModelMetadataRequest request;
  inference::ModelMetadataResponse response;
  request.set_name(model);
  check(channel_->stub->ModelMetadata(channel_->context().get(), request, &response));
  std::vector<Signature> found;
  for (const auto& input : response.inputs()) {
    found.push_back({input.name(), input.datatype(), {input.shape().begin(), input.shape().end()}});
  }
  return found;
}

std::vector<Tensor> GrpcClient::infer(const std::string& model, const std::vector<Tensor>& inputs) {
  inference::ModelInferResponse response;
  check(channel_->stub->ModelInfer(channel_->context().get(), request_of(model, inputs), &response));
  return outputs_of(response);
}

void GrpcClient::stream(const std::string& model, const std::vector<Request>& requests,
                        const std::function<void(const Reply&)>& receive) {
  const auto context = channel_->context();
  const auto stream = channel_->stub->ModelStreamInfer(context.get());
  // Writing and reading go on at once: a server that waits to be read from would otherwise stop both.
  std::thread writer([&] {
    for (const Request& each : requests) {
      inference::ModelInferRequest request = request_of(model, each.inputs);
      request.set_id(each.id);
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
  });
  inference::ModelStreamInferResponse message;
  while (stream->Read(&message)) {
    const auto& response = message.infer_response();
    receive({response.id(), message.error_message(), outputs_of(response)});
  }
  writer.join();
  check(stream->Finish());
}

}  // namespace naiad
