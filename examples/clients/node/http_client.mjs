// A client of the v2 protocol over HTTP.

import { Refused, floats, fp32 } from './tensor.mjs'

const JSON_LENGTH = 'Inference-Header-Content-Length'

export class HttpClient {
  /** `url` as in http://127.0.0.1:8000; `key` is an API key, or empty. */
  constructor(url, key = '') {
    this.url = url
    this.headers = key ? { 'X-API-Key': key } : {}
  }

  async #send(path, { body, headers = {} } = {}) {
    return await fetch(this.url + path, {
      method: body ? 'POST' : 'GET',
      body,
      headers: { ...this.headers, ...headers },
      signal: AbortSignal.timeout(60_000),
    })
  }

  async #succeed(path, options) {
    const response = await this.#send(path, options)
    if (response.status !== 200) throw new Refused(String(response.status), words(await response.text()))
    return response
  }

  async health() {
    const [live, ready] = await Promise.all([this.#send('/v2/health/live'), this.#send('/v2/health/ready')])
    return { live: live.status === 200, ready: ready.status === 200 }
  }

  /** What a model takes. */
  async inputs(model) {
    return (await (await this.#succeed(`/v2/models/${model}`)).json()).inputs
  }

  /** Sends FP32 tensors as JSON numbers, for bodies that a person reads. */
  async inferJson(model, tensors) {
    const inputs = tensors.map((t) => ({ name: t.name, shape: t.shape, datatype: t.datatype, data: floats(t) }))
    const response = await this.#succeed(`/v2/models/${model}/infer`, { body: JSON.stringify({ inputs }) })
    return (await response.json()).outputs.map((output) => fp32(output.name, output.shape, output.data))
  }

  /** Sends tensors as bytes behind the JSON, of any datatype, and asks for the same. */
  async infer(model, tensors) {
    const inputs = tensors.map(({ name, shape, datatype, bytes }) => {
      return { name, shape, datatype, parameters: { binary_data_size: bytes.length } }
    })
    // No outputs are listed, so the parameter counts for all of them.
    const head = Buffer.from(JSON.stringify({ inputs, parameters: { binary_data_output: true } }))
    const response = await this.#succeed(`/v2/models/${model}/infer`, {
      body: Buffer.concat([head, ...tensors.map((t) => t.bytes)]),
      headers: { [JSON_LENGTH]: String(head.length) },
    })
    const body = Buffer.from(await response.arrayBuffer())
    let at = Number(response.headers.get(JSON_LENGTH) ?? body.length)
    return JSON.parse(body.subarray(0, at)).outputs.map(({ name, datatype, shape, parameters }) => {
      const bytes = body.subarray(at, (at += parameters.binary_data_size)) // in the order of the outputs
      return { name, datatype, shape, bytes }
    })
  }
}

/** The server's words; the body itself where it is something else, as a proxy's may be. */
function words(body) {
  try {
    return JSON.parse(body).error ?? body
  } catch {
    return body
  }
}
