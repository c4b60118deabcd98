// A client of the v2 protocol over gRPC. Calls may come from several threads at once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client.hpp"

namespace naiad {

class GrpcClient {
 public:
  // `address` as in 127.0.0.1:8001; `key` is an API key, or empty.
  explicit GrpcClient(const std::string& address, std::string key = "");
  ~GrpcClient();

  Health health();
  std::vector<Signature> inputs(const std::string& model);
  std::vector<Tensor> infer(const std::string& model, const std::vector<Tensor>& inputs);

  // One request of a stream, and one of its replies: an error in place of outputs does not end the stream.
  struct Request {
    std::string id;
    std::vector<Tensor> inputs;
  };
  struct Reply {
    std::string id;
    std::string error;
    std::vector<Tensor> outputs;
  };
  // Sends all requests on one stream and hands over each reply as it comes.
  void stream(const std::string& model, const std::vector<Request>& requests,
              const std::function<void(const Reply&)>& receive);

 private:
  struct Channel;
  std::unique_ptr<Channel> channel_;
};

}  // namespace naiad
