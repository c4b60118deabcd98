// A client of the v2 protocol over gRPC; the stubs are made from the published .proto when it starts.

import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'

import { Refused } from './tensor.mjs'

export class GrpcClient {
  #stub
  #metadata = new grpc.Metadata()

  /** `address` as in 127.0.0.1:8001; `key` is an API key, or empty; `protos` are the folders of the .proto files. */
  constructor(address, key, protos) {
    const options = { includeDirs: protos, keepCase: true, longs: Number, defaults: true }
    const { inference } = grpc.loadPackageDefinition(loader.loadSync('grpc_service.proto', options))
    const limits = { 'grpc.max_receive_message_length': -1 } // by default a client refuses answers over 4 MB
    this.#stub = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), limits)
    if (key) this.#metadata.set('x-api-key', key)
  }

  close() {
    this.#stub.close()
  }

  #call(method, request) {
    return new Promise((resolve, reject) => {
      this.#stub[method](request, this.#metadata, { deadline: Date.now() + 60_000 }, (error, response) => {
        if (error) reject(new Refused(grpc.status[error.code], error.details))
        else resolve(response)
      })
    })
  }

  async health() {
    const { live } = await this.#call('ServerLive', {})
    const { ready } = await this.#call('ServerReady', {})
    return { live, ready }
  }

  /** What a model takes. */
  async inputs(model) {
    return (await this.#call('ModelMetadata', { name: model })).inputs
  }

  /** Sends one request and waits for its answer. */
  async infer(model, tensors) {
    return outputs(await this.#call('ModelInfer', request(model, '', tensors)))
  }

  /** Sends all requests on one stream and yields each reply as it comes; one with an `error` does not end the stream. */
  async *stream(model, requests) {
    const stream = this.#stub.ModelStreamInfer(this.#metadata, { deadline: Date.now() + 60_000 })
    for (const { id, tensors } of requests) stream.write(request(model, id, tensors))
    stream.end()
    for await (const { error_message: error, infer_response: response } of stream) {
      yield { id: response?.id, error, outputs: error ? [] : outputs(response) }
    }
  }
}

function request(model_name, id, tensors) {
  return {
    model_name,
    id,
    inputs: tensors.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
    raw_input_contents: tensors.map((t) => t.bytes), // one entry per input, in the same order
  }
}

function outputs(response) {
  return response.outputs.map(({ name, datatype, shape }, i) => {
    return { name, datatype, shape, bytes: response.raw_output_contents[i] }
  })
}
