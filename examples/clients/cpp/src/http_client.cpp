#include "http_client.hpp"

#include <curl/curl.h>

#include <cctype>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace naiad {

using nlohmann::json;

namespace {

constexpr const char* kJsonLength = "Inference-Header-Content-Length";

struct Answer {
  long status = 0;
  std::size_t json_length = 0;  // 0: the whole body is JSON
  std::string body;
};

std::size_t keep_body(char* data, std::size_t size, std::size_t count, void* body) {
  static_cast<std::string*>(body)->append(data, size * count);
  return size * count;
}

// Looks for the one header that says where the JSON ends and the bytes of the tensors begin.
std::size_t keep_header(char* data, std::size_t size, std::size_t count, void* answer) {
  const std::string line(data, size * count);
  const std::string name(kJsonLength);
  const auto same = [](char a, char b) { return std::tolower(a & 0xff) == std::tolower(b & 0xff); };
  if (line.size() > name.size() && line[name.size()] == ':' && std::equal(name.begin(), name.end(), line.begin(), same)) {
    static_cast<Answer*>(answer)->json_length = std::stoul(line.substr(name.size() + 1));
  }
  return size * count;
}

// The server's words out of {"error": "…"}; the body itself where it is something else, as a proxy's may be.
std::string words(const std::string& body) {
  const json parsed = json::parse(body, nullptr, false);
  return parsed.is_object() && parsed.contains("error") ? parsed["error"].get<std::string>() : body;
}

}  // namespace

struct HttpClient::Connection {
  std::string url;
  std::string key;
  CURL* curl = nullptr;

  Answer call(const std::string& path, const std::string* body, std::size_t json_length) {
    Answer answer;
    curl_easy_reset(curl);  // keeps the connection
    curl_easy_setopt(curl, CURLOPT_URL, (url + path).c_str());
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &answer);
    curl_slist* headers = nullptr;
    if (!key.empty()) headers = curl_slist_append(headers, ("X-API-Key: " + key).c_str());
    if (json_length > 0) {
      headers = curl_slist_append(headers, (std::string(kJsonLength) + ": " + std::to_string(json_length)).c_str());
    }
    if (body != nullptr) {
      headers = curl_slist_append(headers, "Content-Type: application/octet-stream");
      headers = curl_slist_append(headers, "Expect:");  // no extra round trip before a large body
      curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body->data());
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body->size()));
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    const CURLcode code = curl_easy_perform(curl);
    curl_slist_free_all(headers);
    if (code != CURLE_OK) throw Error("unreachable", curl_easy_strerror(code));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    return answer;
  }

  Answer succeed(const std::string& path, const std::string* body = nullptr, std::size_t json_length = 0) {
    Answer answer = call(path, body, json_length);
    if (answer.status != 200) throw Error(std::to_string(answer.status), words(answer.body));
    return answer;
  }
};

HttpClient::HttpClient(std::string url, std::string key) : connection_(std::make_unique<Connection>()) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  connection_->url = std::move(url);
  connection_->key = std::move(key);
  connection_->curl = curl_easy_init();
  if (connection_->curl == nullptr) throw std::runtime_error("libcurl did not start");
}

HttpClient::~HttpClient() { curl_easy_cleanup(connection_->curl); }

Health HttpClient::health() {
  return {connection_->call("/v2/health/live", nullptr, 0).status == 200,
          connection_->call("/v2/health/ready", nullptr, 0).status == 200};
}

std::vector<Signature> HttpClient::inputs(const std::string& model) {
  const json metadata = json::parse(connection_->succeed("/v2/models/" + model).body);
  std::vector<Signature> found;
  for (const json& input : metadata.at("inputs")) {
    found.push_back({input.at("name"), input.at("datatype"), input.at("shape").get<std::vector<std::int64_t>>()});
  }
  return found;
}

std::vector<Tensor> HttpClient::infer_json(const std::string& model, const std::vector<Tensor>& inputs) {
  json request = {{"inputs", json::array()}};
  for (const Tensor& tensor : inputs) {
    request["inputs"].push_back({{"name", tensor.name},
                                 {"shape", tensor.shape},
                                 {"datatype", tensor.datatype},
                                 {"data", tensor.floats()}});
  }
  const std::string body = request.dump();
  const json response = json::parse(connection_->succeed("/v2/models/" + model + "/infer", &body).body);
  std::vector<Tensor> outputs;
  for (const json& output : response.at("outputs")) {
    outputs.push_back(Tensor::of(output.at("name"), output.at("shape"), output.at("data").get<std::vector<float>>()));
  }
  return outputs;
}

std::vector<Tensor> HttpClient::infer(const std::string& model, const std::vector<Tensor>& inputs) {
  // No outputs are listed, so this asks for all of them, as bytes.
  json request = {{"inputs", json::array()}, {"parameters", {{"binary_data_output", true}}}};
  std::string tail;
  for (const Tensor& tensor : inputs) {
    request["inputs"].push_back({{"name", tensor.name},
                                 {"shape", tensor.shape},
                                 {"datatype", tensor.datatype},
                                 {"parameters", {{"binary_data_size", tensor.bytes.size()}}}});
    tail += tensor.bytes;
  }
  const std::string head = request.dump();
  const std::string body = head + tail;
  const Answer answer = connection_->succeed("/v2/models/" + model + "/infer", &body, head.size());
  // The blobs follow the JSON in the order of the outputs.
  std::size_t at = answer.json_length == 0 ? answer.body.size() : answer.json_length;
  const json response = json::parse(answer.body.substr(0, at));
  std::vector<Tensor> outputs;
  for (const json& output : response.at("outputs")) {
    const std::size_t size = output.at("parameters").at("binary_data_size");
    if (size > answer.body.size() - at) throw Error("200", "the answer is shorter than it says");
    outputs.push_back({output.at("name"), output.at("datatype"), output.at("shape"), answer.body.substr(at, size)});
    at += size;
  }
  return outputs;
}

Tensor Tensor::of(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {std::move(name), "FP32", std::move(shape), std::move(bytes)};
}

std::vector<float> Tensor::floats() const {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace naiad
