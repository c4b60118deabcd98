package client

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"naiad.example/client/gen"
)

// GRPC speaks the v2 protocol over gRPC. Any number of goroutines may use it.
type GRPC struct {
	key        string
	connection *grpc.ClientConn
	stub       gen.GRPCInferenceServiceClient
}

// NewGRPC makes a client of a server such as 127.0.0.1:8001; key is an API key, or empty.
func NewGRPC(address, key string) (*GRPC, error) {
	large := grpc.MaxCallRecvMsgSize(math.MaxInt32) // by default a client refuses answers over 4 MB
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(large))
	if err != nil {
		return nil, err
	}
	return &GRPC{key: key, connection: connection, stub: gen.NewGRPCInferenceServiceClient(connection)}, nil
}

// Close closes the connection.
func (g *GRPC) Close() error { return g.connection.Close() }

// call makes the context of one call: the key, and a deadline that the server sees too.
func (g *GRPC) call() (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if g.key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", g.key)
	}
	return context.WithTimeout(ctx, time.Minute)
}

// refused turns a status into the one error of this package.
func refused(err error) error {
	if err == nil {
		return nil
	}
	found := status.Convert(err)
	return &Error{Status: codeNames[found.Code()], Message: found.Message()}
}

// codeNames holds the codes as the protocol writes them; the index is the number on the wire.
var codeNames = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// Health says whether the server lives and whether it is ready.
func (g *GRPC) Health() (live, ready bool) {
	ctx, cancel := g.call()
	defer cancel()
	lives, _ := g.stub.ServerLive(ctx, &gen.ServerLiveRequest{})
	isReady, _ := g.stub.ServerReady(ctx, &gen.ServerReadyRequest{})
	return lives.GetLive(), isReady.GetReady()
}

// Inputs says what a model takes.
func (g *GRPC) Inputs(model string) ([]Signature, error) {
	ctx, cancel := g.call()
	defer cancel()
	response, err := g.stub.ModelMetadata(ctx, &gen.ModelMetadataRequest{Name: model})
	if err != nil {
		return nil, refused(err)
	}
	var found []Signature
	for _, input := range response.Inputs {
		found = append(found, Signature{input.Name, input.Datatype, input.Shape})
	}
	return found, nil
}

// Infer sends one request and waits for its answer.
func (g *GRPC) Infer(model string, inputs ...Tensor) ([]Tensor, error) {
	ctx, cancel := g.call()
	defer cancel()
	response, err := g.stub.ModelInfer(ctx, requestOf(model, "", inputs))
	if err != nil {
		return nil, refused(err)
	}
	return outputsOf(response), nil
}

// Request is one request of a stream.
type Request struct {
	ID     string
	Inputs []Tensor
}

// Reply is one reply of a stream: an error in place of outputs does not end the stream.
type Reply struct {
	ID      string
	Error   string
	Outputs []Tensor
}

// Stream sends all requests on one stream and hands over each reply as it comes.
func (g *GRPC) Stream(model string, requests []Request, receive func(Reply)) error {
	ctx, cancel := g.call()
	defer cancel()
	stream, err := g.stub.ModelStreamInfer(ctx)
	if err != nil {
		return refused(err)
	}
	// Writing and reading go on at once: a server that waits to be read from would otherwise stop both.
	go func() {
		for _, each := range requests {
			if stream.Send(requestOf(model, each.ID, each.Inputs)) != nil {
				return // Recv says why
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refused(err)
		}
		response := message.GetInferResponse()
		receive(Reply{ID: response.GetId(), Error: message.ErrorMessage, Outputs: outputsOf(response)})
	}
}

func requestOf(model, id string, inputs []Tensor) *gen.ModelInferRequest {
	request := &gen.ModelInferRequest{ModelName: model, Id: id}
	for _, t := range inputs {
		input := &gen.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
		request.Inputs = append(request.Inputs, input)
		request.RawInputContents = append(request.RawInputContents, t.Bytes) // one entry per input, in the same order
	}
	return request
}

func outputsOf(response *gen.ModelInferResponse) []Tensor {
	var outputs []Tensor
	for i, output := range response.GetOutputs() {
		if i < len(response.RawOutputContents) {
			outputs = append(outputs, Tensor{output.Name, output.Datatype, output.Shape, response.RawOutputContents[i]})
		}
	}
	return outputs
}
