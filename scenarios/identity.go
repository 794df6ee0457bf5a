package scenarios

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/spf13/pflag"

	"github.com/toast-cloud/toastdev/internal/openstack"
)

// User is a user that the script made.
type User struct {
	Name     string
	ID       string
	Login    string // its name in Keystone
	Password string

	projects []string // the script's names of those it was given a role on, in order
}

// identityCommands are the words for Keystone's things, and the one that removes anything.
func identityCommands() map[string]Command {
	return map[string]Command{
		"project": {
			Summary: "make a project beside the scenario's own",
			Args:    "NAME",
			Detail:  []string{"The scenario's own project is called own. Sets $NAME to its id.", "Example: project other"},
			Min:     1, Max: 1, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					if err := r.free(kindProject, args[0]); err != nil {
						return Outcome{}, err
					}
					p, err := projects.Create(ctx, r.Cloud.Identity, projects.CreateOpts{Name: r.prefix() + args[0], DomainID: "default", Description: described}).Extract()
					if err != nil {
						return Outcome{}, fmt.Errorf("make project %s: %w", args[0], err)
					}
					return r.made(&Resource{Kind: kindProject, Name: args[0], ID: p.ID})
				}
			},
		},
		"user": {
			Summary: "make a user",
			Args:    "NAME [--password PASSWORD] [--disabled]",
			Detail: []string{"Without a role on any project until `grant` gives it one. Sets $NAME to its id.",
				"Example: user alice --password secret"},
			Spares: true, Min: 1, Max: 1, Sets: sets(),
			Flags: func(f *pflag.FlagSet) Action {
				password := f.String("password", "", "its `PASSWORD` instead of one that nobody else knows")
				disabled := f.Bool("disabled", false, "it may not authenticate")
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return r.user(ctx, args[0], *password, !*disabled)
				}
			},
		},
		"role": {
			Summary: "make a role",
			Args:    "NAME",
			Detail:  []string{"One that no policy knows. (admin, member and reader are there.) Sets $NAME to its id.", "Example: role auditor"},
			Min:     1, Max: 1, Sets: sets(),
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					if err := r.free(kindRole, args[0]); err != nil {
						return Outcome{}, err
					}
					role, err := roles.Create(ctx, r.Cloud.Identity, roles.CreateOpts{Name: r.prefix() + args[0]}).Extract()
					if err != nil {
						return Outcome{}, fmt.Errorf("make role %s: %w", args[0], err)
					}
					return r.made(&Resource{Kind: kindRole, Name: args[0], ID: role.ID})
				}
			},
		},
		"grant": {
			Summary: "give a user a role on a project",
			Args:    "USER ROLE PROJECT",
			Detail:  []string{"ROLE is one of the region's (admin, member, reader) or of the script's; PROJECT is the script's, or own.", "Example: grant alice reader own"},
			Min:     3, Max: 3,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.grant(ctx, args[0], args[1], args[2], true)
				}
			},
		},
		"revoke": {
			Summary: "take a user's role on a project away",
			Args:    "USER ROLE PROJECT",
			Detail:  []string{"Tokens that the user got by it are no longer good.", "Example: revoke alice reader own"},
			Min:     3, Max: 3,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.grant(ctx, args[0], args[1], args[2], false)
				}
			},
		},
		"enable": {
			Summary: "let a user authenticate again",
			Args:    "USER",
			Detail:  []string{"Example: enable alice"},
			Min:     1, Max: 1,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.enable(ctx, args[0], true)
				}
			},
		},
		"disable": {
			Summary: "let a user no longer authenticate",
			Args:    "USER",
			Detail:  []string{"Its tokens are no longer good either.", "Example: disable alice"},
			Min:     1, Max: 1,
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.enable(ctx, args[0], false)
				}
			},
		},
		"remove": {
			Summary: "remove what the script has made",
			Args:    "KIND NAME",
			Detail: []string{"KIND is one of network, subnet, router, secgroup, port, floatingip, keypair, volume, snapshot, image, server, project, user, role, app-credential. " +
				"It returns when the thing is gone. What is not removed goes at the scenario's end.", "Example: remove volume data"},
			Async: true, Min: 2, Max: 2,
			Check: func(args []string) error {
				if kinds := removable(); !slices.Contains(kinds, args[0]) {
					return unknown("kind", args[0], kinds)
				}
				return nil
			},
			Flags: func(*pflag.FlagSet) Action {
				return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
					return Outcome{}, r.remove(ctx, args[0], args[1])
				}
			},
		},
	}
}

func (r *Run) user(ctx context.Context, name, password string, enabled bool) (Outcome, error) {
	if err := r.free(kindUser, name); err != nil {
		return Outcome{}, err
	}
	if password == "" {
		password = rand.Text()
	}
	login := r.prefix() + name
	u, err := users.Create(ctx, r.Cloud.Identity, users.CreateOpts{Name: login, Password: password, DomainID: "default", Enabled: &enabled, Description: described}).Extract()
	if err != nil {
		return Outcome{}, fmt.Errorf("make user %s: %w", name, err)
	}
	if err := r.put(kindUser, name, &User{Name: name, ID: u.ID, Login: login, Password: password}); err != nil {
		return Outcome{}, err
	}
	return Outcome{Text: fmt.Sprintf("user %s %s\n", name, u.ID), Set: map[string]string{variable(name): u.ID}}, nil
}

func (r *Run) enable(ctx context.Context, name string, yes bool) error {
	user, err := get[*User](r, kindUser, name)
	if err != nil {
		return err
	}
	_, err = users.Update(ctx, r.Cloud.Identity, user.ID, users.UpdateOpts{Enabled: &yes}).Extract()
	return err
}

// grant gives a user a role on a project, or takes it away.
func (r *Run) grant(ctx context.Context, name, role, project string, give bool) error {
	user, err := get[*User](r, kindUser, name)
	if err != nil {
		return err
	}
	projectID, err := r.id(kindProject, project)
	if err != nil {
		return err
	}
	roleID, err := r.role(ctx, role)
	if err != nil {
		return err
	}
	if !give {
		return roles.Unassign(ctx, r.Cloud.Identity, roleID, roles.UnassignOpts{UserID: user.ID, ProjectID: projectID}).ExtractErr()
	}
	if err := roles.Assign(ctx, r.Cloud.Identity, roleID, roles.AssignOpts{UserID: user.ID, ProjectID: projectID}).ExtractErr(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	user.projects = append(user.projects, project)
	return nil
}

// role is the id of a role: one that the script made, or one of the region's.
func (r *Run) role(ctx context.Context, name string) (string, error) {
	if slices.Contains(names(r, kindRole), name) {
		return r.id(kindRole, name)
	}
	return r.looked(kindRole, name, func() (string, error) { return roleNamed(ctx, r.Cloud, name) })
}

// roleNamed is the id of one of the region's roles.
func roleNamed(ctx context.Context, cloud *openstack.Cloud, name string) (string, error) {
	pages, err := roles.List(cloud.Identity, nil).AllPages(ctx)
	if err != nil {
		return "", fmt.Errorf("list roles: %w", err)
	}
	found, err := roles.ExtractRoles(pages)
	if err != nil {
		return "", fmt.Errorf("list roles: %w", err)
	}
	var there []string
	for _, role := range found {
		if role.Name == name {
			return role.ID, nil
		}
		there = append(there, role.Name)
	}
	return "", unknown(kindRole, name, there)
}

// projectName is what a project is called in Keystone.
func (r *Run) projectName(name string) (string, error) {
	if _, err := r.id(kindProject, name); err != nil {
		return "", err
	}
	if name == ownProject {
		return r.project(), nil
	}
	return r.prefix() + name, nil
}
