package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
)

// About is what `/` answers.
type About struct {
	InstanceID string  `json:"instance_id"` // empty until the metadata service answered
	Hostname   string  `json:"hostname"`
	Uptime     float64 `json:"uptime"` // seconds
}

// handler answers
//
//	GET  /          who the instance is
//	GET  /metadata  all that the metadata service said; 503 until it did
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
