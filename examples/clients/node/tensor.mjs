// What both clients speak of: tensors, and the one error.

/** The server refused a call: the HTTP status or the name of the gRPC code, and the server's own words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** A tensor of floats; its bytes are little-endian and row-major, as on the wire. */
export function fp32(name, shape, values) {
  const bytes = Buffer.alloc(4 * values.length)
  values.forEach((value, i) => bytes.writeFloatLE(value, 4 * i))
  return { name, datatype: 'FP32', shape, bytes }
}

/** Reads a tensor of floats. */
export function floats(tensor) {
  return Array.from({ length: tensor.bytes.length / 4 }, (_, i) => tensor.bytes.readFloatLE(4 * i))
}
