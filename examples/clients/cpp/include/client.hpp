// What both clients speak of: tensors, and the one error.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace naiad {

// A tensor: its bytes are little-endian and row-major, as on the wire.
struct Tensor {
  std::string name;
  std::string datatype;
  std::vector<std::int64_t> shape;
  std::string bytes;

  static Tensor of(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values);
  std::vector<float> floats() const;
};

struct Health {
  bool live = false;
  bool ready = false;
};

struct Signature {
  std::string name;
  std::string datatype;
  std::vector<std::int64_t> shape;
};

// The server refused a call, or could not be reached: `what()` holds the server's own words.
class Error : public std::runtime_error {
 public:
  Error(std::string status, const std::string& message) : std::runtime_error(message), status_(std::move(status)) {}
  // The HTTP status or the name of the gRPC status code.
  const std::string& status() const { return status_; }

 private:
  std::string status_;
};

}  // namespace naiad
