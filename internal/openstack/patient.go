package openstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// patience is how long a call is made again while an API does not answer: a service's restart, or a node's death and what
// takes over from it.
const patience = 30 * time.Second

// patient makes a call again, after growing pauses, that did not reach its API, or that only asks and was answered by a
// proxy or by nobody. What was refused stays refused.
type patient struct {
	to    http.RoundTripper
	limit time.Duration
}

// RoundTrip makes the call until it has an answer of its own or the limit passes: then with the last one.
func (p *patient) RoundTrip(first *http.Request) (*http.Response, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 250*time.Millisecond, 3*time.Second
	request := first
	var last *http.Response
	answer, err := backoff.Retry(first.Context(), func() (*http.Response, error) {
		if last != nil {
			io.Copy(io.Discard, last.Body)
			last.Body.Close()
			last = nil
		}
		response, err := p.to.RoundTrip(request)
		again, possible := rewound(first)
		asks := first.Method == http.MethodGet || first.Method == http.MethodHead
		switch {
		case err != nil && (!possible || !asks && !unsent(err)):
			return nil, backoff.Permanent(err)
		case err != nil:
			request = again
			return nil, err
		case asks && unavailable(response.StatusCode):
			request, last = again, response
			return nil, errUnavailable
		}
		return response, nil
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(p.limit))
	if last != nil && errors.Is(err, errUnavailable) {
		return last, nil
	}
	return answer, err
}

var errUnavailable = errors.New("the API is not available")

// rewound is a request as it was before it was sent.
func rewound(q *http.Request) (again *http.Request, possible bool) {
	again = q.Clone(q.Context())
	if q.Body == nil || q.Body == http.NoBody {
		return again, true
	}
	if q.GetBody == nil {
		return nil, false
	}
	body, err := q.GetBody()
	again.Body = body
	return again, err == nil
}

// unsent says that the API cannot have seen the request.
func unsent(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial" && !errors.Is(err, context.Canceled)
}

func unavailable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}
