// Reads a scrape from standard input with Prometheus' own parser, and prints what it found as JSON:
// {family: {"type": …, "samples": number}}. What Prometheus would refuse ends it with an error.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/common/expfmt"
)

type family struct {
	Type    string `json:"type"`
	Samples int    `json:"samples"`
}

func main() {
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	found := map[string]family{}
	for name, parsed := range families {
		found[name] = family{strings.ToLower(parsed.GetType().String()), len(parsed.GetMetric())}
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
