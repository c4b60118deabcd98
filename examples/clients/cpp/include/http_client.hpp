// A client of the v2 protocol over HTTP: one keep-alive connection, used by one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client.hpp"

namespace naiad {

class HttpClient {
 public:
  // `url` as in http://127.0.0.1:8000; `key` is an API key, or empty.
  explicit HttpClient(std::string url, std::string key = "");
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  Health health();
  std::vector<Signature> inputs(const std::string& model);

  // Tensors as JSON numbers, FP32 both ways: for bodies that a person reads.
  std::vector<Tensor> infer_json(const std::string& model, const std::vector<Tensor>& inputs);
  // Tensors as bytes behind the JSON, any datatype: for everything else.
  std::vector<Tensor> infer(const std::string& model, const std::vector<Tensor>& inputs);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace naiad
