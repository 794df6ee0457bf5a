package openstack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// Call is one call of an API.
type Call struct {
	Method string
	URL    string
	Body   []byte      // nil: none; JSON unless Header says otherwise
	Header http.Header // may be nil
}

// Answer is what came of it, whatever the status.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// answerLimit is how much of an answer is read.
const answerLimit = 64 << 20

// Do makes a call with the session's token, which is renewed when it has expired.
func (c *Cloud) Do(ctx context.Context, call Call) (Answer, error) {
	token := c.Token()
	answer, err := c.DoAs(ctx, token, call)
	if err != nil || answer.Status != http.StatusUnauthorized || c.provider.ReauthFunc == nil {
		return answer, err
	}
	if err := c.provider.Reauthenticate(ctx, token); err != nil {
		return answer, nil // who no longer gets a token is unauthorized
	}
	return c.DoAs(ctx, c.Token(), call)
}

// DoAs makes a call with a token; with "" for one, as nobody.
func (c *Cloud) DoAs(ctx context.Context, token string, call Call) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, call.Method, call.URL, bytes.NewReader(call.Body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Accept", "application/json")
	if call.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("X-Auth-Token", token)
	}
	for name, values := range call.Header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	response, err := c.provider.HTTPClient.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", call.Method, call.URL, err)
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}

// URL is where a service has a path: compute and /servers give http://172.30.0.5:8774/v2.1/servers. The service is one of the
// catalog's types; volume is the volume service, however the catalog calls it.
func (c *Cloud) URL(service, path string) (string, error) {
	clients := map[string]*gophercloud.ServiceClient{"identity": c.Identity, "compute": c.Compute, "network": c.Network, "image": c.Image,
		"volume": c.Volume, "block-storage": c.Volume, "volumev3": c.Volume, "placement": c.Placement}
	if client := clients[service]; client != nil {
		return client.ServiceURL(strings.TrimPrefix(path, "/")), nil
	}
	var there []string
	for _, s := range c.Catalog {
		if s.Type == service {
			return s.URL + strings.TrimPrefix(path, "/"), nil
		}
		there = append(there, s.Type)
	}
	slices.Sort(there)
	there = slices.Compact(there)
	return "", (&fault.Error{Code: fault.NotFound, Message: fmt.Sprintf("the catalog of region %s has no service %q", c.Auth.Region, service),
		Expected: strings.Join(there, ", ")}).Suggest(service, there)
}
