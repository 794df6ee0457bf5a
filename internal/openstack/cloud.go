// Package openstack is a region's APIs from outside: a session on its public endpoints, and what a newcomer finds there.
package openstack

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// limit is how long one call may take, from the connection to the answer's last byte, and uploadLimit the same for an image's
// upload. A region that is slow takes a multiple of them: Auth.Patience.
const (
	limit       = time.Minute
	uploadLimit = 15 * time.Minute
)

// Auth is who asks, and whom: a user with a password, a token that was given out before, or an application credential.
type Auth struct {
	URL      string // Keystone's public endpoint: http://172.30.0.5:5000/v3
	Region   string
	User     string
	Password string
	Project  string // what the session is scoped to; an application credential has its own. Empty: nothing
	Domain   string // of user and project; empty: Default

	Token            string // instead of User and Password
	Credential       string // an application credential's id, instead of User and Password
	CredentialSecret string

	Detour   *Detour // nil: this machine is on the network of the APIs
	Patience int     // how many times as long as usual a call may take; 0: once
}

// Place is the region's APIs, asked by nobody yet.
func (a Auth) Place() Auth {
	return Auth{URL: a.URL, Region: a.Region, Detour: a.Detour, Patience: a.Patience}
}

// Detour leads to APIs whose network this machine is not on.
type Detour struct {
	Ports map[string]string // of this machine, 127.0.0.1:5000, by the addresses that the catalog has, 172.30.0.5:5000
}

// dial connects to where an address is reached.
func (d *Detour) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d != nil && d.Ports[address] != "" {
		address = d.Ports[address]
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
}

func (a Auth) domain() string {
	if a.Domain == "" {
		return "Default"
	}
	return a.Domain
}

// options is what gophercloud is told. A session from a token ends with it.
func (a Auth) options() gophercloud.AuthOptions {
	o := gophercloud.AuthOptions{IdentityEndpoint: a.URL}
	if a.Project != "" {
		o.Scope = &gophercloud.AuthScope{ProjectName: a.Project, DomainName: a.domain()}
	}
	switch {
	case a.Credential != "":
		o.ApplicationCredentialID, o.ApplicationCredentialSecret, o.AllowReauth = a.Credential, a.CredentialSecret, true
	case a.Token != "":
		o.TokenID = a.Token
	default:
		o.Username, o.Password, o.DomainName, o.AllowReauth = a.User, a.Password, a.domain(), true
	}
	return o
}

// String is who asks in what project, for errors: never a secret.
func (a Auth) String() string {
	who := a.User
	switch {
	case a.Credential != "":
		who = "application credential " + a.Credential
	case a.Token != "":
		who = "the holder of a token"
	}
	if a.Project == "" {
		return who + " without a project"
	}
	return who + " in project " + a.Project
}

// Cloud is a session. A service that the catalog does not have is nil.
type Cloud struct {
	Auth      Auth
	ProjectID string // empty: the session is not scoped
	UserID    string
	Expires   time.Time // of the token that the session began with
	Catalog   []Service

	Identity  *gophercloud.ServiceClient
	Compute   *gophercloud.ServiceClient
	Network   *gophercloud.ServiceClient
	Image     *gophercloud.ServiceClient
	Volume    *gophercloud.ServiceClient
	Placement *gophercloud.ServiceClient

	provider *gophercloud.ProviderClient
}

// Service is one entry of the catalog that has a public endpoint in the region.
type Service struct {
	Type string `json:"type"`
	Name string `json:"name"`
	URL  string `json:"url"`
}

// Connect authenticates and reads the catalog: one call. The session may be used by several goroutines, and authenticates
// anew when its token has expired.
func Connect(ctx context.Context, auth Auth) (*Cloud, error) {
	return connect(ctx, auth, direct(auth.Detour), limit)
}

// ConnectPatiently is Connect for a region whose services come and go: an API that does not answer, while the session is
// made and afterwards, is asked again for a while.
func ConnectPatiently(ctx context.Context, auth Auth) (*Cloud, error) {
	return connect(ctx, auth, &patient{to: direct(auth.Detour), limit: patience}, limit)
}

// direct is how the region's APIs are reached: without a proxy, and on a connection for each call, because one that waits
// is one that a restart of theirs cuts.
func direct(by *Detour) *http.Transport {
	return &http.Transport{DialContext: by.dial, Proxy: nil, DisableKeepAlives: true}
}

func connect(ctx context.Context, auth Auth, transport http.RoundTripper, limit time.Duration) (*Cloud, error) {
	provider, err := openstack.NewClient(auth.URL)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", auth.URL, err)
	}
	provider.UseTokenLock()
	provider.HTTPClient = http.Client{Timeout: time.Duration(max(1, auth.Patience)) * limit, Transport: transport}
	options := auth.options()
	if err := openstack.AuthenticateV3(ctx, provider, &options, gophercloud.EndpointOpts{}); err != nil {
		return nil, fmt.Errorf("authenticate %s at %s: %w", auth, auth.URL, err)
	}
	answer, ok := provider.GetAuthResult().(answer)
	if !ok {
		return nil, fmt.Errorf("authenticate at %s: unexpected answer %T", auth.URL, provider.GetAuthResult())
	}
	c := &Cloud{Auth: auth, provider: provider}
	if err := c.read(answer); err != nil {
		return nil, fmt.Errorf("read the catalog of %s: %w", auth.URL, err)
	}
	c.clients(provider)
	switch {
	case c.Identity != nil:
	case c.ProjectID == "": // there is no catalog without a project
		c.Identity = &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: versioned(gophercloud.NormalizeURL(auth.URL), "v3"), Type: "identity"}
	default: // a wrong region, mostly
		return nil, fmt.Errorf("the catalog of %s has no identity service in region %q", auth.URL, auth.Region)
	}
	return c, nil
}

// Token is the session's own, as it stands.
func (c *Cloud) Token() string { return c.provider.Token() }

// answer is Keystone's to a request for a token, or for what one is.
type answer interface {
	ExtractToken() (*tokens.Token, error)
	ExtractProject() (*tokens.Project, error)
	ExtractUser() (*tokens.User, error)
	ExtractServiceCatalog() (*tokens.ServiceCatalog, error)
}

// read takes project, user and the region's public endpoints from a token's answer.
func (c *Cloud) read(token answer) error {
	given, err := token.ExtractToken()
	if err != nil {
		return err
	}
	c.Expires = given.ExpiresAt
	project, err := token.ExtractProject()
	if err != nil {
		return err
	}
	if project != nil {
		c.ProjectID = project.ID
	}
	user, err := token.ExtractUser()
	if err != nil {
		return err
	}
	c.UserID = user.ID
	catalog, err := token.ExtractServiceCatalog()
	if err != nil {
		return err
	}
	for _, entry := range catalog.Entries {
		for _, e := range entry.Endpoints {
			if e.Interface == "public" && (e.Region == c.Auth.Region || e.RegionID == c.Auth.Region) {
				c.Catalog = append(c.Catalog, Service{Type: entry.Type, Name: entry.Name, URL: gophercloud.NormalizeURL(e.URL)})
			}
		}
	}
	slices.SortFunc(c.Catalog, func(a, b Service) int { return strings.Compare(a.Type+a.Name, b.Type+b.Name) })
	return nil
}

// clients makes the services' clients from the catalog as it stands: gophercloud's own constructors ask every endpoint for
// its versions first, a call more for each.
func (c *Cloud) clients(provider *gophercloud.ProviderClient) {
	for _, s := range c.Catalog {
		client := &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: s.URL, Type: s.Type}
		switch s.Type {
		case "identity":
			client.Endpoint = versioned(s.URL, "v3")
			c.Identity = client
		case "compute":
			c.Compute = client
		case "network":
			client.ResourceBase = versioned(s.URL, "v2.0")
			c.Network = client
		case "image":
			client.ResourceBase = versioned(s.URL, "v2")
			c.Image = client
		case "block-storage", "volumev3":
			c.Volume = client
		case "placement":
			c.Placement = client
		}
	}
}

// versioned is url with the version at its end, once.
func versioned(url, version string) string {
	if strings.HasSuffix(url, "/"+version+"/") {
		return url
	}
	return url + version + "/"
}

// need says which services are missing of those that something cannot do without.
func (c *Cloud) need() error {
	var missing []string
	for name, client := range map[string]*gophercloud.ServiceClient{"compute": c.Compute, "network": c.Network, "image": c.Image} {
		if client == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("the catalog of region %s has no %s", c.Auth.Region, strings.Join(missing, ", "))
	}
	return nil
}
