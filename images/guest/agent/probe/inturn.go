package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// metadataService is where every instance asks.
const metadataService = "http://169.254.169.254"

// listenFor is how long a server that need not echo is listened to: it may have nothing to say.
const listenFor = 300 * time.Millisecond

// tcp makes a connection and sends its payload. With Echo all of it has to come back; else the connection is enough, and
// what the other side says to it is only counted.
func (m *measurement) tcp(ctx context.Context, i int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", net.JoinHostPort(m.Target, strconv.Itoa(m.Port)))
	if err != nil {
		return plain(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if !m.Echo {
		m.connected = time.Now()
		conn.SetDeadline(m.connected.Add(listenFor))
	}
	payload := m.payload(i)
	sent := make(chan error, 1)
	go func() { // beside the reading: an echo of more than the buffers hold would wait for it
		n, err := conn.Write(payload)
		m.result.BytesSent += int64(n)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(io.LimitReader(conn, int64(len(payload))))
	m.result.BytesReceived += int64(len(back))
	if err == nil && !bytes.Equal(back, payload) {
		err = fmt.Errorf("%d bytes came back, not the %d that were sent", len(back), len(payload))
	}
	if err != nil {
		conn.Close() // which ends the sending
	}
	failed := <-sent
	switch {
	case !m.Echo:
		return nil
	case err != nil:
		return plain(err)
	}
	return plain(failed)
}

// http gets Target.
func (m *measurement) http(ctx context.Context, i int) error { return m.get(ctx, i, m.Target) }

// metadata gets Path from the metadata service.
func (m *measurement) metadata(ctx context.Context, i int) error {
	path := m.Path
	if path == "" {
		path = "/latest/meta-data/instance-id"
	}
	m.result.Target = metadataService + "/" + strings.TrimPrefix(path, "/")
	return m.get(ctx, i, m.result.Target)
}

// get asks for a URL on a connection of its own, whatever proxy the environment names, and keeps the answer. One with
// another status than it must have counts as lost.
func (m *measurement) get(ctx context.Context, i int, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Toastdev-Probe", string(m.payload(i)))
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return plain(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	m.result.BytesSent += int64(m.Bytes)
	m.result.BytesReceived += int64(len(body))
	m.result.Status, m.result.Body = response.StatusCode, string(body)
	if err == nil && response.StatusCode != m.Request.Status && (m.Request.Status != 0 || response.StatusCode >= http.StatusBadRequest) {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return plain(err)
}

// dns asks for the addresses of Target.
func (m *measurement) dns(ctx context.Context, _ int) error {
	resolver := &net.Resolver{PreferGo: true}
	if m.Server != "" {
		server, err := netip.ParseAddr(m.Server)
		if err != nil {
			return fmt.Errorf("the name server %q: %w", m.Server, err)
		}
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
		}
	}
	found, err := resolver.LookupNetIP(ctx, "ip4", m.Target)
	if err != nil {
		return err
	}
	m.result.Addresses = nil
	for _, a := range found {
		m.result.Addresses = append(m.result.Addresses, a.Unmap().String())
	}
	return nil
}

// plain is an error in the words a script looks for: "connection refused", "no answer".
func plain(err error) error {
	var number syscall.Errno
	switch {
	case err == nil, errors.Is(err, net.ErrClosed):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return errUnanswered
	case errors.As(err, &number):
		return number
	}
	return err
}
