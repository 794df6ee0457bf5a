// Package cloudtest is a region's APIs for unit tests: collections of objects in memory, made, listed, changed and removed
// as Keystone, Neutron, Nova, Glance and Cinder do it, and no more behaviour than a test gives them.
package cloudtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Object is what an API shows of a thing.
type Object = map[string]any

// Region is the APIs of one region. Its fields may be changed while a test holds Lock.
type Region struct {
	sync.Mutex
	URL     string
	Objects map[string][]Object // by collection: "networks", "servers", ...
	Calls   []string            // method and path of each, authentication included
	// Made, when set, is told of each new object of a collection before it is stored, and may change it.
	Made func(collection string, o Object)
	// Fail, when set, gives a call's status code; 0 lets it pass.
	Fail func(method, path string) int

	ids int
}

// New starts a region with the users, roles and groups that every real one has.
func New(t *testing.T) *Region {
	r := &Region{Objects: map[string][]Object{
		"users":           {{"id": "admin-id", "name": "admin"}},
		"roles":           {{"id": "r-admin", "name": "admin"}, {"id": "r-member", "name": "member"}},
		"security-groups": {{"id": "sg", "name": "default", "security_group_rules": []any{}}},
		"flavors":         {{"id": "f-large", "name": "large", "ram": 2048, "vcpus": 1, "disk": 10}, {"id": "f-nodisk", "ram": 64, "vcpus": 1, "disk": 0}, {"id": "f-tiny", "name": "tiny", "ram": 128, "vcpus": 1, "disk": 1}},
	}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// Count is how many calls began with a method, and whose path has a part.
func (r *Region) Count(method, part string) int {
	r.Lock()
	defer r.Unlock()
	n := 0
	for _, c := range r.Calls {
		if strings.HasPrefix(c, method+" ") && strings.Contains(c, part) {
			n++
		}
	}
	return n
}

// singular is what a collection's objects are wrapped in; Glance's are not.
var singular = map[string]string{"networks": "network", "subnets": "subnet", "ports": "port", "routers": "router", "floatingips": "floatingip",
	"security-groups": "security_group", "security-group-rules": "security_group_rule", "projects": "project", "users": "user", "roles": "role",
	"servers": "server", "flavors": "flavor", "volumes": "volume", "snapshots": "snapshot", "os-keypairs": "keypair", "images": ""}

// plural is what a list is wrapped in where that is not the collection's name.
var plural = map[string]string{"security-groups": "security_groups", "security-group-rules": "security_group_rules", "os-keypairs": "keypairs"}

// ServeHTTP answers one call.
func (r *Region) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.Lock()
	defer r.Unlock()
	r.Calls = append(r.Calls, q.Method+" "+q.URL.RequestURI())
	if r.Fail != nil {
		if code := r.Fail(q.Method, q.URL.Path); code != 0 {
			http.Error(w, "the test says so", code)
			return
		}
	}
	body, _ := io.ReadAll(q.Body)
	var sent map[string]any
	json.Unmarshal(body, &sent)
	parts := strings.Split(strings.Trim(q.URL.Path, "/"), "/") // service, version, collection, id, verb
	for len(parts) < 5 {
		parts = append(parts, "")
	}
	if parts[0] == "v3" { // Keystone is at the root
		parts = append([]string{"identity"}, parts...)
	}
	collection, id, verb := parts[2], parts[3], parts[4]
	switch {
	case collection == "auth":
		w.Header().Set("X-Subject-Token", "token")
		reply(w, http.StatusCreated, Object{"token": Object{"expires_at": "2999-01-01T00:00:00.000000Z", "user": Object{"id": "admin-id", "name": "admin"},
			"project": Object{"id": r.project(sent), "name": "p"}, "catalog": r.catalog()}})
	case collection == "role_assignments":
		reply(w, http.StatusOK, Object{"role_assignments": r.list("role_assignments")})
	case collection == "projects" && verb == "users": // /v3/projects/P/users/U/roles/R
		r.Objects["role_assignments"] = append(r.Objects["role_assignments"], Object{"user": Object{"id": parts[5]}, "role": Object{"id": parts[7]}})
		w.WriteHeader(http.StatusNoContent)
	case collection == "quotas", collection == "os-quota-sets":
		key := map[string]string{"quotas": "quota", "os-quota-sets": "quota_set"}[collection]
		where := parts[0] + "-quota"
		if len(r.Objects[where]) == 0 {
			r.Objects[where] = []Object{{"instances": 10, "network": 10, "volumes": 10}}
		}
		if q.Method == http.MethodPut {
			r.Objects[where][0] = sent[key].(map[string]any)
		}
		reply(w, http.StatusOK, Object{key: r.Objects[where][0]})
	case collection == "os-services", collection == "agents":
		key := map[string]string{"os-services": "services", "agents": "agents"}[collection]
		reply(w, http.StatusOK, Object{key: r.list(parts[0] + "-services")})
	case verb == "add_router_interface":
		r.store("ports", Object{"device_id": id, "fixed_ips": []any{Object{"subnet_id": sent["subnet_id"]}}})
		reply(w, http.StatusOK, Object{"subnet_id": sent["subnet_id"]})
	case verb == "remove_router_interface":
		if i := r.find("ports", fmt.Sprint(sent["port_id"])); i >= 0 {
			r.Objects["ports"] = append(r.Objects["ports"][:i], r.Objects["ports"][i+1:]...)
		}
		reply(w, http.StatusOK, Object{"port_id": sent["port_id"]})
	case verb == "file":
		if i := r.find("images", id); i >= 0 {
			r.Objects["images"][i]["status"] = "active"
		}
		w.WriteHeader(http.StatusNoContent)
	case verb == "action":
		reply(w, http.StatusOK, Object{"output": "kernel\npanic: no root\n"})
	default:
		r.rest(w, q, collection, id, sent)
	}
}

// rest is a collection's plain create, list, get, change and remove.
func (r *Region) rest(w http.ResponseWriter, q *http.Request, collection, id string, sent map[string]any) {
	wrap, known := singular[collection]
	if !known {
		reply(w, http.StatusOK, Object{collection: []any{}})
		return
	}
	wrapped := func(o Object) Object {
		if wrap == "" {
			return o
		}
		return Object{wrap: o}
	}
	i := r.find(collection, id)
	switch {
	case q.Method == http.MethodPost:
		o := sent
		if wrap != "" {
			o = sent[wrap].(map[string]any)
		}
		o = r.store(collection, o)
		code := http.StatusCreated
		if collection == "servers" {
			code = http.StatusAccepted
		}
		reply(w, code, wrapped(o))
	case id == "" || id == "detail":
		found := []Object{}
		for _, o := range r.list(collection) {
			match := true
			for _, key := range []string{"name", "project_id", "tenant_id", "owner", "device_id", "status"} {
				want := strings.TrimPrefix(q.URL.Query().Get(key), "^")
				have, _ := o[key].(string)
				match = match && (want == "" || o[key] == nil || have == want || collection == "servers" && strings.HasPrefix(have, want))
			}
			if image := q.URL.Query().Get("image"); image != "" && o["imageRef"] != image {
				match = false
			}
			if match {
				found = append(found, o)
			}
		}
		wrap, other := plural[collection]
		if !other {
			wrap = collection
		}
		reply(w, http.StatusOK, Object{wrap: found})
	case i < 0:
		http.Error(w, "no such "+collection, http.StatusNotFound)
	case q.Method == http.MethodDelete:
		r.Objects[collection] = append(r.Objects[collection][:i], r.Objects[collection][i+1:]...)
		w.WriteHeader(http.StatusNoContent)
	case q.Method == http.MethodPut:
		for k, v := range sent[wrap].(map[string]any) {
			r.Objects[collection][i][k] = v
		}
		reply(w, http.StatusOK, wrapped(r.Objects[collection][i]))
	default:
		reply(w, http.StatusOK, wrapped(r.Objects[collection][i]))
	}
}

func (r *Region) list(collection string) []Object {
	if r.Objects[collection] == nil {
		return []Object{}
	}
	return r.Objects[collection]
}

func (r *Region) find(collection, id string) int {
	for i, o := range r.Objects[collection] {
		if o["id"] == id {
			return i
		}
	}
	return -1
}

func (r *Region) store(collection string, o Object) Object {
	r.ids++
	o["id"] = fmt.Sprintf("%s-%d", collection, r.ids)
	switch collection {
	case "images":
		o["status"] = "queued"
	case "networks":
		if segments, ok := o["segments"].([]any); ok { // Neutron shows a single one as the network's own
			maps.Copy(o, segments[0].(map[string]any))
		}
	case "subnets":
		if i := r.find("networks", fmt.Sprint(o["network_id"])); i >= 0 {
			r.Objects["networks"][i]["subnets"] = []any{o["id"]}
		}
	case "floatingips":
		o["floating_ip_address"] = "192.0.2.77"
	case "security-group-rules":
		group := r.Objects["security-groups"][0]
		group["security_group_rules"] = append(group["security_group_rules"].([]any), o)
	}
	if r.Made != nil {
		r.Made(collection, o)
	}
	r.Objects[collection] = append(r.Objects[collection], o)
	return o
}

// project is the id of the project that a token is asked for; one that is not there has its name for an id.
func (r *Region) project(sent map[string]any) string {
	var name string
	if auth, ok := sent["auth"].(map[string]any); ok {
		if scope, ok := auth["scope"].(map[string]any); ok {
			name, _ = scope["project"].(map[string]any)["name"].(string)
		}
	}
	for _, p := range r.Objects["projects"] {
		if p["name"] == name {
			return p["id"].(string)
		}
	}
	return name
}

func (r *Region) catalog() []Object {
	var catalog []Object
	for kind, path := range map[string]string{"identity": "/v3", "compute": "/compute/v2.1", "network": "/network", "image": "/image", "block-storage": "/volume/v3"} {
		catalog = append(catalog, Object{"type": kind, "name": kind, "endpoints": []Object{
			{"interface": "internal", "region": "kr1", "url": "http://api.invalid" + path}, {"interface": "public", "region": "kr1", "url": r.URL + path}}})
	}
	return catalog
}

func reply(w http.ResponseWriter, code int, o Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(o)
}
