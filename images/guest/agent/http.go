package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// About is what `/` answers.
type About struct {
	InstanceID string  `json:"instance_id"` // empty until the metadata service answered
	Hostname   string  `json:"hostname"`
	Uptime     float64 `json:"uptime"` // seconds
}

// Result is what `/exec` answers.
type Result struct {
	Output   string `json:"output"` // stdout and stderr as they came
	ExitCode int    `json:"exit_code"`
	TimedOut bool   `json:"timed_out,omitempty"`
}

// execLimit is how long a command may run when the request does not say.
const execLimit = 60 * time.Second

// handler answers
//
//	GET  /          who the instance is
//	GET  /metadata  all that the metadata service said; 503 until it did
//	POST /exec      runs the body by sh; ?timeout=90s for longer commands
//	POST /echo      the body
func handler(identity *identity) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		metadata, _ := identity.get()
		hostname, _ := os.Hostname()
		reply(w, http.StatusOK, About{InstanceID: metadata.InstanceID, Hostname: hostname, Uptime: uptime().Seconds()})
	})
	mux.HandleFunc("GET /metadata", func(w http.ResponseWriter, r *http.Request) {
		metadata, err := identity.get()
		if err != nil {
			reply(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
			return
		}
		reply(w, http.StatusOK, metadata)
	})
	mux.HandleFunc("POST /exec", func(w http.ResponseWriter, r *http.Request) {
		limit := execLimit
		if text := r.URL.Query().Get("timeout"); text != "" {
			var err error
			if limit, err = time.ParseDuration(text); err != nil {
				reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
				return
			}
		}
		script, err := io.ReadAll(r.Body)
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		reply(w, http.StatusOK, run(r.Context(), string(script), limit))
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})
	return mux
}

func reply(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

// run runs script by sh in a process group of its own, which is killed when the limit passes or the asker goes away.
func run(ctx context.Context, script string, limit time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A process left in the background keeps the output open; it is not waited for.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	result := Result{Output: output.String(), ExitCode: cmd.ProcessState.ExitCode(), TimedOut: ctx.Err() != nil}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		result.Output += err.Error()
		result.ExitCode = 127
	}
	return result
}
