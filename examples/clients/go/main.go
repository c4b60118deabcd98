// Sends the handwritten digit of examples/mnist over HTTP and gRPC and prints which digit the server sees.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"naiad.example/client/client"
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// flatten reads data that may be nested in any way; only the order of the numbers counts.
func flatten(data any, into []float32) []float32 {
	switch value := data.(type) {
	case []any:
		for _, each := range value {
			into = flatten(each, into)
		}
	case float64:
		into = append(into, float32(value))
	}
	return into
}

func readDigit(file string) client.Tensor {
	content, err := os.ReadFile(file)
	check(err)
	var request struct {
		Inputs []struct {
			client.Signature
			Data any
		}
	}
	check(json.Unmarshal(content, &request))
	input := request.Inputs[0]
	return client.FP32(input.Name, input.Shape, flatten(input.Data, nil))
}

func digit(outputs []client.Tensor) string {
	best, scores := 0, outputs[0].Floats()
	for i, score := range scores {
		if score > scores[best] {
			best = i
		}
	}
	return fmt.Sprintf("the digit is %d", best)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func metadata(protocol, model string, inputs []client.Signature, err error) {
	check(err)
	for _, input := range inputs {
		shape := strings.Join(strings.Fields(fmt.Sprint(input.Shape)), ", ")
		fmt.Printf("%s metadata: %s takes %s %s %s\n", protocol, model, input.Name, input.Datatype, shape)
	}
}

func answer(what string, outputs []client.Tensor, err error) {
	check(err)
	fmt.Printf("%s: %s\n", what, digit(outputs))
}

func overHTTP(model, key string, pixels, wrong client.Tensor) {
	server := client.NewHTTP(setting("URL", "http://127.0.0.1:8000"), key)
	live, ready := server.Health()
	fmt.Printf("http health: live %t, ready %t\n", live, ready)
	inputs, err := server.Inputs(model)
	metadata("http", model, inputs, err)
	outputs, err := server.InferJSON(model, pixels)
	answer("http json", outputs, err)
	outputs, err = server.Infer(model, pixels)
	answer("http binary", outputs, err)
	_, err = server.Infer(model, wrong)
	fmt.Printf("http error: %v\n", err)
}

func overGRPC(model, key string, pixels, wrong client.Tensor) {
	server, err := client.NewGRPC(setting("GRPC", "127.0.0.1:8001"), key)
	check(err)
	defer server.Close()
	live, ready := server.Health()
	fmt.Printf("grpc health: live %t, ready %t\n", live, ready)
	inputs, err := server.Inputs(model)
	metadata("grpc", model, inputs, err)
	outputs, err := server.Infer(model, pixels)
	answer("grpc infer", outputs, err)
	_, err = server.Infer(model, wrong)
	fmt.Printf("grpc error: %v\n", err)

	requests := []client.Request{
		{ID: "1", Inputs: []client.Tensor{pixels}},
		{ID: "2", Inputs: []client.Tensor{wrong}},
		{ID: "3", Inputs: []client.Tensor{pixels}},
	}
	check(server.Stream(model, requests, func(reply client.Reply) {
		if reply.Error != "" {
			fmt.Printf("grpc stream: refused: %s\n", reply.Error)
			return
		}
		fmt.Printf("grpc stream: request %s: %s\n", reply.ID, digit(reply.Outputs))
	}))
}

func main() {
	model, key := setting("MODEL", "mnist-cnn"), os.Getenv("KEY")
	pixels := readDigit("../../mnist/request.json")
	wrong := pixels // the same bytes under a datatype that the model does not take
	wrong.Datatype = "INT32"
	overHTTP(model, key, pixels, wrong)
	overGRPC(model, key, pixels, wrong)
}
