package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Metadata is what the metadata service says of the instance.
type Metadata struct {
	InstanceID string          `json:"instance_id"` // EC2's: i-00000001
	Hostname   string          `json:"hostname"`    // EC2's: with the domain
	UserData   string          `json:"user_data,omitempty"`
	OpenStack  json.RawMessage `json:"openstack,omitempty"` // meta_data.json as it came: uuid, name, keys, meta, ...
}

// identity is the instance's metadata as soon as it is known.
type identity struct {
	mu       sync.Mutex
	metadata Metadata
	err      error // why there is none yet
	known    bool
}

func (i *identity) get() (Metadata, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.known && i.err == nil {
		return Metadata{}, errors.New("the metadata service was not asked yet")
	}
	return i.metadata, i.err
}

// fetch asks the metadata service until it answers, then names the host and runs user data that is a script.
func (i *identity) fetch(service string, transport http.RoundTripper) {
	client := &http.Client{Timeout: 4 * time.Second, Transport: transport}
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 4*time.Second) {
		metadata, err := ask(client, service)
		i.mu.Lock()
		i.metadata, i.err, i.known = metadata, err, err == nil
		i.mu.Unlock()
		if err == nil {
			log.Printf("metadata: instance %s, host name %s, after %s", metadata.InstanceID, metadata.Hostname, uptime())
			adopt(metadata)
			return
		}
		time.Sleep(pause)
	}
}

// ask makes one attempt to get all of it.
func ask(client *http.Client, service string) (Metadata, error) {
	var m Metadata
	for path, value := range map[string]*string{
		"/latest/meta-data/instance-id": &m.InstanceID,
		"/latest/meta-data/hostname":    &m.Hostname,
		"/latest/user-data":             &m.UserData,
	} {
		body, err := get(client, service+path)
		if errors.Is(err, os.ErrNotExist) && value == &m.UserData {
			continue // an instance without user data
		}
		if err != nil {
			return Metadata{}, err
		}
		*value = string(body)
	}
	body, err := get(client, service+"/openstack/latest/meta_data.json")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Metadata{}, err
	}
	if json.Valid(body) {
		m.OpenStack = body
	}
	return m, nil
}

func get(client *http.Client, url string) ([]byte, error) {
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", url, err)
	case response.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", url, os.ErrNotExist)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, nil
}

// adopt names the host and runs the user data when it is a script.
func adopt(m Metadata) {
	name, _, _ := strings.Cut(m.Hostname, ".")
	if err := syscall.Sethostname([]byte(name)); err != nil {
		log.Printf("set host name %q: %v", name, err)
	}
	if !strings.HasPrefix(m.UserData, "#!") {
		return
	}
	const path = "/run/user-data"
	if err := os.WriteFile(path, []byte(m.UserData), 0o700); err != nil {
		log.Printf("user data: %v", err)
		return
	}
	cmd := exec.Command(path)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		log.Printf("user data: %v", err)
	}
}
