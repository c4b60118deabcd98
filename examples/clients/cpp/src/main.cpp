// Sends the handwritten digit of examples/mnist over HTTP and gRPC and prints which digit the server sees.

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "grpc_client.hpp"
#include "http_client.hpp"

using nlohmann::json;

namespace {

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// `data` may be nested in any way; only the order of the numbers counts.
void flatten(const json& data, std::vector<float>& into) {
  if (data.is_array()) {
    for (const json& each : data) flatten(each, into);
  } else {
    into.push_back(data.get<float>());
  }
}

naiad::Tensor read_digit(const char* file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error(std::string("cannot read ") + file);
  const json tensor = json::parse(stream).at("inputs").at(0);
  std::vector<float> pixels;
  flatten(tensor.at("data"), pixels);
  return naiad::Tensor::of(tensor.at("name"), tensor.at("shape"), pixels);
}

std::string digit(const std::vector<naiad::Tensor>& outputs) {
  const std::vector<float> scores = outputs.at(0).floats();
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  return "the digit is " + std::to_string(best);
}

template <typename Client>
void health_and_metadata(const char* protocol, Client& client, const std::string& model) {
  const naiad::Health health = client.health();
  std::cout << std::boolalpha << protocol << " health: live " << health.live << ", ready " << health.ready << '\n';
  for (const naiad::Signature& input : client.inputs(model)) {
    std::cout << protocol << " metadata: " << model << " takes " << input.name << ' ' << input.datatype << " [";
    for (std::size_t i = 0; i < input.shape.size(); ++i) std::cout << (i == 0 ? "" : ", ") << input.shape[i];
    std::cout << "]\n";
  }
}

template <typename Client>
void refused(const char* protocol, Client& client, const std::string& model, const naiad::Tensor& wrong) {
  try {
    client.infer(model, {wrong});
  } catch (const naiad::Error& error) {
    std::cout << protocol << " error: " << error.status() << ' ' << error.what() << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string model = setting("MODEL", "mnist-cnn");
  const std::string key = setting("KEY", "");
  const naiad::Tensor pixels = read_digit(argc > 1 ? argv[1] : "../../mnist/request.json");
  naiad::Tensor wrong = pixels;  // the same bytes under a datatype that the model does not take
  wrong.datatype = "INT32";

  naiad::HttpClient http(setting("URL", "http://127.0.0.1:8000"), key);
  health_and_metadata("http", http, model);
  std::cout << "http json: " << digit(http.infer_json(model, {pixels})) << '\n';
  std::cout << "http binary: " << digit(http.infer(model, {pixels})) << '\n';
  refused("http", http, model, wrong);

  naiad::GrpcClient grpc(setting("GRPC", "127.0.0.1:8001"), key);
  health_and_metadata("grpc", grpc, model);
  std::cout << "grpc infer: " << digit(grpc.infer(model, {pixels})) << '\n';
  refused("grpc", grpc, model, wrong);
  grpc.stream(model, {{"1", {pixels}}, {"2", {wrong}}, {"3", {pixels}}}, [](const naiad::GrpcClient::Reply& reply) {
    if (reply.error.empty()) {
      std::cout << "grpc stream: request " << reply.id << ": " << digit(reply.outputs) << '\n';
    } else {
      std::cout << "grpc stream: refused: " << reply.error << '\n';
    }
  });
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
