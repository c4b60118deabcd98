package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const jsonLength = "Inference-Header-Content-Length"

// HTTP speaks the v2 protocol over HTTP. Any number of goroutines may use it.
type HTTP struct {
	url    string
	key    string
	client http.Client
}

// NewHTTP makes a client of a server such as http://127.0.0.1:8000; key is an API key, or empty.
func NewHTTP(url, key string) *HTTP {
	return &HTTP{url: url, key: key, client: http.Client{Timeout: time.Minute}}
}

func (h *HTTP) call(method, path string, body []byte, header http.Header) (*http.Response, []byte, error) {
	request, err := http.NewRequest(method, h.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if h.key != "" {
		request.Header.Set("X-API-Key", h.key)
	}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		refusal := struct{ Error string }{string(content)} // a proxy's answer may be no JSON
		_ = json.Unmarshal(content, &refusal)
		return nil, nil, &Error{Status: strconv.Itoa(response.StatusCode), Message: refusal.Error}
	}
	return response, content, nil
}

// Health says whether the server lives and whether it is ready.
func (h *HTTP) Health() (live, ready bool) {
	_, _, notLive := h.call(http.MethodGet, "/v2/health/live", nil, nil)
	_, _, notReady := h.call(http.MethodGet, "/v2/health/ready", nil, nil)
	return notLive == nil, notReady == nil
}

// Inputs says what a model takes.
func (h *HTTP) Inputs(model string) ([]Signature, error) {
	_, content, err := h.call(http.MethodGet, "/v2/models/"+model, nil, nil)
	if err != nil {
		return nil, err
	}
	var metadata struct{ Inputs []Signature }
	return metadata.Inputs, json.Unmarshal(content, &metadata)
}

type jsonTensor struct {
	Signature
	Data       []float32      `json:"data,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

// InferJSON sends FP32 tensors as JSON numbers, for bodies that a person reads.
func (h *HTTP) InferJSON(model string, inputs ...Tensor) ([]Tensor, error) {
	var request struct {
		Inputs []jsonTensor `json:"inputs"`
	}
	for _, t := range inputs {
		sent := jsonTensor{Signature: Signature{t.Name, t.Datatype, t.Shape}, Data: t.Floats()}
		request.Inputs = append(request.Inputs, sent)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	_, content, err := h.call(http.MethodPost, "/v2/models/"+model+"/infer", body, nil)
	if err != nil {
		return nil, err
	}
	var response struct{ Outputs []jsonTensor }
	if err := json.Unmarshal(content, &response); err != nil {
		return nil, err
	}
	var outputs []Tensor
	for _, output := range response.Outputs {
		outputs = append(outputs, FP32(output.Name, output.Shape, output.Data))
	}
	return outputs, nil
}

// Infer sends tensors as bytes behind the JSON, of any datatype, and asks for the same.
func (h *HTTP) Infer(model string, inputs ...Tensor) ([]Tensor, error) {
	request := struct {
		Inputs     []jsonTensor   `json:"inputs"`
		Parameters map[string]any `json:"parameters"`
	}{Parameters: map[string]any{"binary_data_output": true}} // counts because no outputs are listed
	var tail []byte
	for _, t := range inputs {
		size := map[string]any{"binary_data_size": len(t.Bytes)}
		request.Inputs = append(request.Inputs, jsonTensor{Signature: Signature{t.Name, t.Datatype, t.Shape}, Parameters: size})
		tail = append(tail, t.Bytes...)
	}
	head, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	header.Set(jsonLength, strconv.Itoa(len(head)))
	response, content, err := h.call(http.MethodPost, "/v2/models/"+model+"/infer", append(head, tail...), header)
	if err != nil {
		return nil, err
	}
	at := len(content) // without the header the whole body is JSON
	if value := response.Header.Get(jsonLength); value != "" {
		if at, err = strconv.Atoi(value); err != nil || at > len(content) {
			return nil, fmt.Errorf("the answer's %s is %q", jsonLength, value)
		}
	}
	return cut(content[:at], content[at:])
}

// cut gives each output its bytes: they follow the JSON in the order of the outputs.
func cut(head, tail []byte) ([]Tensor, error) {
	var response struct {
		Outputs []struct {
			Signature
			Parameters struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	if err := json.Unmarshal(head, &response); err != nil {
		return nil, err
	}
	var outputs []Tensor
	for _, output := range response.Outputs {
		size := output.Parameters.Size
		if size < 0 || size > len(tail) {
			return nil, fmt.Errorf("the answer is shorter than it says")
		}
		outputs = append(outputs, Tensor{output.Name, output.Datatype, output.Shape, tail[:size]})
		tail = tail[size:]
	}
	return outputs, nil
}
