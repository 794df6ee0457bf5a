package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/openstack"
)

// apiCommands is `api`.
func apiCommands() map[string]Command {
	return map[string]Command{
		"api": {
			Summary: "call an API",
			Args:    "METHOD SERVICE PATH [BODY|@FILE] [--as USER|TOKEN|none] [--project PROJECT] [--microversion V] [--header 'NAME: VALUE']... [--status N]",
			Detail: []string{"SERVICE is a type of the catalog: identity, compute, network, image, volume, placement. PATH is below its version: /servers. BODY is JSON; @FILE is a file of the " +
				"script's archive.",
				"--as is a user that the script made (in --project, else in the first it was given a role on), a token of the script, or none; without it the region's admin asks, in the scenario's own project.",
				"It fails unless the status is N, or without --status one of 2xx. Prints the body; `json` looks into it, `status` at the status.",
				"Example: api GET compute /servers --as alice --status 403"},
			Async: true, Min: 3, Max: 4,
			Check: func(args []string) error {
				if !slices.Contains(methods, args[0]) {
					return unknown("method", args[0], methods)
				}
				return nil
			},
			Flags: func(f *pflag.FlagSet) Action {
				as := f.String("as", "", "a `USER` or token of the script, or none")
				project := f.String("project", "", "the `PROJECT` that the user asks in")
				microversion := f.String("microversion", "", "the API's `VERSION` that is asked for")
				headers := f.StringArray("header", nil, "a header, '`NAME: VALUE`'; may be given several times")
				status := f.Int("status", 0, "the `STATUS` that is expected instead of any 2xx")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					call := openstack.Call{Method: args[0], Header: http.Header{}}
					if err := microversioned(call.Header, args[1], *microversion); err != nil {
						return Outcome{}, err
					}
					for _, h := range *headers {
						name, value, ok := strings.Cut(h, ":")
						if !ok {
							return Outcome{}, fault.New(fault.Invalid, "--header: %q is not NAME: VALUE", h)
						}
						call.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
					}
					if len(args) > 3 {
						var err error
						if call.Body, err = r.body(args[3]); err != nil {
							return Outcome{}, err
						}
					}
					return r.api(ctx, call, args[1], args[2], *as, *project, *status)
				}
			},
		},
	}
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}

// microversioned asks for an API's version, in its own way and in Nova's older one.
func microversioned(header http.Header, service, version string) error {
	if version == "" {
		return nil
	}
	name, known := map[string]string{"compute": "compute", "placement": "placement", "volume": "volume", "block-storage": "volume", "volumev3": "volume", "identity": "identity"}[service]
	if !known {
		return fault.New(fault.Invalid, "the service %q has no microversions", service)
	}
	header.Set("OpenStack-API-Version", name+" "+version)
	if name == "compute" {
		header.Set("X-OpenStack-Nova-API-Version", version)
	}
	return nil
}

// body is a call's: the word itself, or the file that @ names.
func (r *Run) body(word string) ([]byte, error) {
	name, isFile := strings.CutPrefix(word, "@")
	if !isFile {
		return []byte(word), nil
	}
	path, err := r.File(name)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// api makes a call as somebody, and compares its status.
func (r *Run) api(ctx context.Context, call openstack.Call, service, path, as, project string, want int) (Outcome, error) {
	session, token, err := r.asker(ctx, as, project)
	if err != nil {
		return Outcome{}, err
	}
	// The asker's own catalog first: where it has the project in its addresses, they are its own project's.
	url, err := session.URL(service, path)
	if err != nil {
		if url, err = r.Cloud.URL(service, path); err != nil {
			return Outcome{}, err
		}
	}
	call.URL = url
	var answer openstack.Answer
	if token == nil {
		answer, err = session.Do(ctx, call)
	} else {
		answer, err = session.DoAs(ctx, *token, call)
	}
	if err != nil {
		return Outcome{}, err
	}
	outcome := Outcome{Text: string(answer.Body), Status: answer.Status}
	if json.Valid(answer.Body) {
		outcome.JSON = json.RawMessage(answer.Body)
	}
	if want == 0 && answer.Status/100 == 2 || answer.Status == want {
		return outcome, nil
	}
	expected := "2xx"
	if want != 0 {
		expected = strconv.Itoa(want)
	}
	return outcome, &Mismatch{Expected: fmt.Sprintf("%s of %s %s %s", expected, call.Method, service, path), Seen: shown(answer.Status, answer.Body)}
}

// shown is a status and why, for people.
func shown(status int, body []byte) string {
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	if status >= 400 {
		if line := strings.Join(strings.Fields(string(body)), " "); line != "" {
			text += ": " + clip(line, 300)
		}
	}
	return text
}

// clip is text, and not more of it than so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// asker is whose session a call is made with; a token that is not nil is used instead of the session's.
func (r *Run) asker(ctx context.Context, as, project string) (session *openstack.Cloud, token *string, err error) {
	switch {
	case as == "":
		return r.Cloud, nil, nil
	case as == "none":
		return r.Cloud, new(string), nil
	case slices.Contains(names(r, kindToken), as):
		t, err := get[*Token](r, kindToken, as)
		if err != nil {
			return nil, nil, err
		}
		return t.session, &t.ID, nil
	}
	user, err := get[*User](r, kindUser, as)
	if err != nil {
		there := append(append(names(r, kindUser), names(r, kindToken)...), "none")
		return nil, nil, unknown("user or token", as, there)
	}
	if project == "" && len(user.projects) > 0 {
		project = user.projects[0]
	}
	session, err = r.session(ctx, user, project)
	return session, nil, err
}

// session is a user's in a project, made once.
func (r *Run) session(ctx context.Context, user *User, project string) (*openstack.Cloud, error) {
	const kind = "session"
	name := user.Name + " in " + project
	if slices.Contains(names(r, kind), name) {
		return get[*openstack.Cloud](r, kind, name)
	}
	auth := r.World.Admin.Place()
	auth.User, auth.Password = user.Login, user.Password
	if project != "" {
		var err error
		if auth.Project, err = r.projectName(project); err != nil {
			return nil, err
		}
	}
	cloud, err := openstack.ConnectPatiently(ctx, auth)
	if err != nil {
		return nil, err
	}
	if err := r.put(kind, name, cloud); err != nil { // a line beside this one was faster
		return get[*openstack.Cloud](r, kind, name)
	}
	return cloud, nil
}
