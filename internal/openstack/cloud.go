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

// Limit is how long one call may take, from the connection to the answer's last byte.
const Limit = time.Minute

// uploadLimit is the same for an image's upload.
const uploadLimit = 15 * time.Minute

// Auth is who asks, and whom.
type Auth struct {
	URL      string // Keystone's public endpoint: http://172.30.0.5:5000/v3
	Region   string
	User     string
	Password string
	Project  string
	Domain   string // of user and project; empty: Default
}

func (a Auth) domain() string {
	if a.Domain == "" {
		return "Default"
	}
	return a.Domain
}

// Cloud is a session. A service that the catalog does not have is nil.
type Cloud struct {
	Auth      Auth
	ProjectID string
	UserID    string
	Catalog   []Service

	Identity  *gophercloud.ServiceClient
	Compute   *gophercloud.ServiceClient
	Network   *gophercloud.ServiceClient
	Image     *gophercloud.ServiceClient
	Volume    *gophercloud.ServiceClient
	Placement *gophercloud.ServiceClient
}

// Service is one entry of the catalog that has a public endpoint in the region.
type Service struct {
	Type string `json:"type"`
	Name string `json:"name"`
	URL  string `json:"url"`
}

// Connect authenticates and reads the catalog: one call.
func Connect(ctx context.Context, auth Auth) (*Cloud, error) {
	return connect(ctx, auth, Limit)
}

func connect(ctx context.Context, auth Auth, limit time.Duration) (*Cloud, error) {
	provider, err := openstack.NewClient(auth.URL)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", auth.URL, err)
	}
	provider.HTTPClient = http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			// The region's APIs are reached directly, and a connection that waits is one that a restart of theirs cuts.
			Proxy:             nil,
			DisableKeepAlives: true,
		},
	}
	options := gophercloud.AuthOptions{
		IdentityEndpoint: auth.URL, Username: auth.User, Password: auth.Password,
		TenantName: auth.Project, DomainName: auth.domain(), AllowReauth: true,
	}
	if err := openstack.AuthenticateV3(ctx, provider, &options, gophercloud.EndpointOpts{}); err != nil {
		return nil, fmt.Errorf("authenticate %s in project %s at %s: %w", auth.User, auth.Project, auth.URL, err)
	}
	token, ok := provider.GetAuthResult().(tokens.CreateResult)
	if !ok {
		return nil, fmt.Errorf("authenticate at %s: unexpected answer %T", auth.URL, provider.GetAuthResult())
	}
	c := &Cloud{Auth: auth}
	if err := c.read(token); err != nil {
		return nil, fmt.Errorf("read the catalog of %s: %w", auth.URL, err)
	}
	c.clients(provider)
	if c.Identity == nil { // a wrong region, mostly
		return nil, fmt.Errorf("the catalog of %s has no identity service in region %q", auth.URL, auth.Region)
	}
	return c, nil
}

// read takes project, user and the region's public endpoints from a token's answer.
func (c *Cloud) read(token tokens.CreateResult) error {
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
