package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/toast-cloud/toastdev/images/guest/agent/probe"
)

// prober reads a probe.Request from stdin and prints its probe.Result. SIGINT and SIGTERM end it early, with what it has;
// with attached the end of stdin does so too: it follows whoever started it, over whatever connection.
func prober(attached bool, stdin io.Reader, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var request probe.Request
	decoder := json.NewDecoder(stdin)
	if err := decoder.Decode(&request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if attached {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	return json.NewEncoder(stdout).Encode(probe.Run(ctx, request))
}
