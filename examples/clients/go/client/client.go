// Package client calls an inference server over the v2 protocol: HTTP and gRPC.
package client

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Tensor holds bytes as they travel: little-endian and row-major.
type Tensor struct {
	Name     string
	Datatype string
	Shape    []int64
	Bytes    []byte
}

// Signature is what a model says about one of its inputs.
type Signature struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// Error is a refusal: the HTTP status or the name of the gRPC code, and the server's own words.
type Error struct {
	Status  string
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s", e.Status, e.Message) }

// FP32 makes a tensor of floats.
func FP32(name string, shape []int64, values []float32) Tensor {
	bytes := make([]byte, 0, 4*len(values))
	for _, value := range values {
		bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(value))
	}
	return Tensor{Name: name, Datatype: "FP32", Shape: shape, Bytes: bytes}
}

// Floats reads a tensor of floats.
func (t Tensor) Floats() []float32 {
	values := make([]float32, len(t.Bytes)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Bytes[4*i:]))
	}
	return values
}
