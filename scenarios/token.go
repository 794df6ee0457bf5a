package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/openstack"
)

// Token is a token that the script asked for.
type Token struct {
	Name    string
	ID      string
	Expires time.Time

	session *openstack.Cloud // that it began; its token is the only one ever used
}

// credential is an application credential that the script made.
type credential struct{ user, id, secret string }

// tokenOptions are the flags of `token`.
type tokenOptions struct {
	user, password, project, credential, token string
	unscoped                                   bool
	status                                     int
}

// tokenCommands are the words for what proves who somebody is.
func tokenCommands() map[string]Command {
	return map[string]Command{
		"token": {
			Summary: "ask Keystone for a token",
			Args:    "NAME (--user USER [--password P] | --app-credential AC | --from-token TOKEN) [--project PROJECT | --unscoped] [--status N]",
			Detail: []string{"USER is the script's, with its own password unless --password says otherwise, or one of the region's. PROJECT is the script's, own, or one of the region's. " +
				"--from-token changes a token for one in another project.",
				"It fails when Keystone refuses; with --status N unless Keystone refuses it so. `json` looks into user_id, project_id, expires and catalog.",
				"Sets $NAME to the token (to nothing when it is refused as expected).",
				"Example: token bad --user alice --password wrong --project own --status 401"},
			Async: true, Spares: true, Min: 1, Max: 1, Sets: sets(),
			Flags: func(f *pflag.FlagSet) Action {
				var o tokenOptions
				f.StringVar(&o.user, "user", "", "the `USER` who asks")
				f.StringVar(&o.password, "password", "", "the `PASSWORD` it asks with")
				f.StringVar(&o.project, "project", "", "the `PROJECT` the token is for")
				f.BoolVar(&o.unscoped, "unscoped", false, "the token is for no project")
				f.StringVar(&o.credential, "app-credential", "", "an application credential `AC` instead of a user")
				f.StringVar(&o.token, "from-token", "", "a `TOKEN` instead of a user")
				f.IntVar(&o.status, "status", 0, "the `STATUS` that Keystone refuses with")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) { return r.token(ctx, args[0], o) }
			},
		},
		"token-revoke": {
			Summary: "revoke a token",
			Args:    "NAME",
			Detail:  []string{"Keystone no longer takes it. (Another service that has just taken it may do so a little longer: it remembers.)", "Example: token-revoke t1"},
			Min:     1, Max: 1,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					t, err := get[*Token](r, kindToken, args[0])
					if err != nil {
						return Outcome{}, err
					}
					return Outcome{}, tokens.Revoke(ctx, r.Cloud.Identity, t.ID).Err
				}
			},
		},
		"app-credential": {
			Summary: "make an application credential of a user's, with which its programs authenticate",
			Args:    "NAME --user USER [--password P] --project PROJECT [--role ROLE]...",
			Detail: []string{"It is good for the roles that the user has on the project, or those of them that --role says. Sets $NAME to its id.",
				"Example: app-credential robot --user alice --project own --role reader"},
			Spares: true, Min: 1, Max: 1, Sets: sets(),
			Flags: func(f *pflag.FlagSet) Action {
				user := f.String("user", "", "the `USER` whose it is")
				password := f.String("password", "", "the user's `PASSWORD`")
				project := f.String("project", "", "the `PROJECT` it is for")
				limited := f.StringArray("role", nil, "a `ROLE` of the user's; may be given several times")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.credential(ctx, args[0], tokenOptions{user: *user, password: *password, project: *project}, *limited)
				}
			},
		},
	}
}

// auth is what Keystone is asked with.
func (r *Run) auth(o tokenOptions) (openstack.Auth, error) {
	auth := r.World.Admin.Place()
	given := 0
	for _, way := range []string{o.user, o.credential, o.token} {
		if way != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return auth, fault.New(fault.Invalid, "one of --user, --app-credential and --from-token says who asks")
	case o.unscoped && o.project != "":
		return auth, fault.New(fault.Invalid, "--project and --unscoped exclude each other")
	case o.credential != "" && (o.project != "" || o.unscoped):
		return auth, fault.New(fault.Invalid, "an application credential has a project of its own")
	case o.credential == "" && o.project == "" && !o.unscoped:
		return auth, fault.New(fault.Invalid, "the token is for --project PROJECT, or --unscoped")
	case o.token != "" && o.unscoped:
		return auth, fault.New(fault.Invalid, "--from-token gives a token for a project")
	case o.user == "" && o.password != "":
		return auth, fault.New(fault.Invalid, "--password is a user's")
	}
	if o.project != "" {
		// One that the script does not know is the region's, or nobody's: Keystone says so.
		auth.Project = o.project
		if name, err := r.projectName(o.project); err == nil {
			auth.Project = name
		}
	}
	switch {
	case o.credential != "":
		c, err := get[*credential](r, kindCredential, o.credential)
		if err != nil {
			return auth, err
		}
		auth.Credential, auth.CredentialSecret = c.id, c.secret
	case o.token != "":
		t, err := get[*Token](r, kindToken, o.token)
		if err != nil {
			return auth, err
		}
		auth.Token = t.ID
	case slices.Contains(names(r, kindUser), o.user):
		user, err := get[*User](r, kindUser, o.user)
		if err != nil {
			return auth, err
		}
		auth.User, auth.Password = user.Login, user.Password
	default:
		auth.User = o.user
	}
	if o.password != "" {
		auth.Password = o.password
	}
	return auth, nil
}

func (r *Run) token(ctx context.Context, name string, o tokenOptions) (Outcome, error) {
	if err := r.free(kindToken, name); err != nil {
		return Outcome{}, err
	}
	auth, err := r.auth(o)
	if err != nil {
		return Outcome{}, err
	}
	outcome := Outcome{Set: map[string]string{variable(name): ""}}
	session, err := openstack.ConnectPatiently(ctx, auth)
	if refusal, ok := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err); ok {
		outcome.Status, outcome.Text = refusal.Actual, string(refusal.Body)
		switch {
		case o.status == refusal.Actual:
			return outcome, nil
		case o.status != 0:
			return outcome, &Mismatch{Expected: fmt.Sprintf("%d for %s", o.status, auth), Seen: shown(refusal.Actual, refusal.Body)}
		}
		return outcome, &Mismatch{Expected: "a token for " + auth.String(), Seen: shown(refusal.Actual, refusal.Body)}
	}
	if err != nil {
		return Outcome{}, err
	}
	outcome.Status = http.StatusCreated
	if o.status != 0 && o.status != http.StatusCreated {
		return outcome, &Mismatch{Expected: fmt.Sprintf("%d for %s", o.status, auth), Seen: "a token"}
	}
	t := &Token{Name: name, ID: session.Token(), Expires: session.Expires, session: session}
	if err := r.put(kindToken, name, t); err != nil {
		return Outcome{}, err
	}
	catalog := session.Catalog
	if catalog == nil {
		catalog = []openstack.Service{}
	}
	outcome.JSON = map[string]any{"user_id": session.UserID, "project_id": session.ProjectID, "expires": session.Expires, "catalog": catalog}
	outcome.Text = fmt.Sprintf("token %s of user %s, project %q, expires %s\n", name, session.UserID, session.ProjectID, session.Expires.UTC().Format(time.RFC3339))
	outcome.Set[variable(name)] = t.ID
	return outcome, nil
}

func (r *Run) credential(ctx context.Context, name string, o tokenOptions, limited []string) (Outcome, error) {
	if err := r.free(kindCredential, name); err != nil {
		return Outcome{}, err
	}
	if o.user == "" || o.project == "" {
		return Outcome{}, fault.New(fault.Invalid, "an application credential is a user's, for a project").WithRemedy("give it --user USER --project PROJECT")
	}
	auth, err := r.auth(o)
	if err != nil {
		return Outcome{}, err
	}
	session, err := openstack.ConnectPatiently(ctx, auth)
	if err != nil {
		return Outcome{}, err
	}
	opts := applicationcredentials.CreateOpts{Name: r.prefix() + name, Description: described}
	for _, role := range limited {
		id, err := r.role(ctx, role)
		if err != nil {
			return Outcome{}, err
		}
		opts.Roles = append(opts.Roles, applicationcredentials.Role{ID: id})
	}
	made, err := applicationcredentials.Create(ctx, session.Identity, session.UserID, opts).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make application credential %s: %w", name, err)
	}
	if err := r.put(kindCredential, name, &credential{user: session.UserID, id: made.ID, secret: made.Secret}); err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: fmt.Sprintf("%s %s %s\n", kindCredential, name, made.ID), Set: map[string]string{variable(name): made.ID}}, nil
}

// accepted says whether Keystone takes a token: nil, or why not.
func (r *Run) accepted(ctx context.Context, t *Token) error {
	url, err := r.Cloud.URL("identity", "/auth/tokens")
	if err != nil {
		return err
	}
	answer, err := r.Cloud.Do(ctx, openstack.Call{Method: http.MethodGet, URL: url, Header: http.Header{"X-Subject-Token": {t.ID}}})
	if err != nil {
		return err
	}
	switch answer.Status {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusUnauthorized:
		return errRefused
	}
	return fmt.Errorf("Keystone answers %s %s", strconv.Itoa(answer.Status), strings.TrimSpace(string(answer.Body)))
}

// errRefused is Keystone's no to a token.
var errRefused = errors.New("Keystone refuses it")
