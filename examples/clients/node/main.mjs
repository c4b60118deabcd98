// Sends the handwritten digit of examples/mnist over HTTP and gRPC and prints which digit the server sees.

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

import { GrpcClient } from './grpc_client.mjs'
import { HttpClient } from './http_client.mjs'
import { floats, fp32 } from './tensor.mjs'

const { URL: url = 'http://127.0.0.1:8000', GRPC = '127.0.0.1:8001', MODEL = 'mnist-cnn', KEY = '' } = process.env
const PROTOS = ['crates/core/proto', 'naiad/config'].map((folder) => fileURLToPath(new URL(`../../../${folder}`, import.meta.url)))

async function readDigit() {
  const file = new URL('../../mnist/request.json', import.meta.url)
  const [{ name, shape, data }] = JSON.parse(await readFile(file, 'utf8')).inputs
  return fp32(name, shape, data.flat(Infinity)) // data may be nested in any way; only the order counts
}

function digit(outputs) {
  const scores = floats(outputs[0])
  return `the digit is ${scores.indexOf(Math.max(...scores))}`
}

async function describe(protocol, client) {
  const { live, ready } = await client.health()
  console.log(`${protocol} health: live ${live}, ready ${ready}`)
  for (const { name, datatype, shape } of await client.inputs(MODEL)) {
    console.log(`${protocol} metadata: ${MODEL} takes ${name} ${datatype} [${shape.join(', ')}]`)
  }
}

async function refused(protocol, call) {
  try {
    await call
  } catch (error) {
    console.log(`${protocol} error: ${error.status} ${error.message}`)
  }
}

const pixels = await readDigit()
const wrong = { ...pixels, datatype: 'INT32' } // the same bytes under a datatype that the model does not take

const http = new HttpClient(url, KEY)
await describe('http', http)
console.log(`http json: ${digit(await http.inferJson(MODEL, [pixels]))}`)
console.log(`http binary: ${digit(await http.infer(MODEL, [pixels]))}`)
await refused('http', http.infer(MODEL, [wrong]))

const client = new GrpcClient(GRPC, KEY, PROTOS)
await describe('grpc', client)
console.log(`grpc infer: ${digit(await client.infer(MODEL, [pixels]))}`)
await refused('grpc', client.infer(MODEL, [wrong]))
const requests = ['1', '2', '3'].map((id) => ({ id, tensors: [id === '2' ? wrong : pixels] }))
for await (const reply of client.stream(MODEL, requests)) {
  if (reply.error) console.log(`grpc stream: refused: ${reply.error}`)
  else console.log(`grpc stream: request ${reply.id}: ${digit(reply.outputs)}`)
}
client.close()
