package build

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestDebianSourcesFollowTheHostsMirrors(t *testing.T) {
	public := []string{
		"deb http://deb.debian.org/debian bookworm main",
		"deb http://deb.debian.org/debian bookworm-updates main",
		"deb http://deb.debian.org/debian-security bookworm-security main",
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"no sources at all": {nil, public},
		"deb822, the same suite": {map[string]string{"debian.sources": `Types: deb
# a comment
URIs: http://mirror.test/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
`}, []string{
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian bookworm main",
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian bookworm-updates main",
			"deb http://mirror.test/debian-security bookworm-security main",
		}},
		"another suite, one-line form": {map[string]string{"sources.list": `
deb-src http://ftp.test/debian trixie main
deb	[ arch=amd64 trusted=yes ] http://ftp.test/debian trixie main non-free # here
deb http://ftp.test/debian trixie-backports main
`}, []string{"deb [trusted=yes] http://ftp.test/debian bookworm main"}},
		"others that name their suites like Debian": {map[string]string{"sources.list": `
deb https://apt.releases.hashicorp.com bookworm main
deb https://packages.microsoft.com/debian/12/prod bookworm main
deb https://download.docker.com/linux/debian bookworm stable
deb http://archive.ubuntu.com/ubuntu noble main
`}, public},
		"a disabled source": {map[string]string{"debian.sources": "Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n"}, public},
		"a mirror behind a repository manager": {map[string]string{"sources.list": "deb https://user@art.test/artifactory/debian-remote stable main"},
			[]string{"deb https://user@art.test/artifactory/debian-remote bookworm main"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range debianSources(test.files, "bookworm") {
				got = append(got, s.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestAPTSettingsKeepTheWayToMirrorsAlone(t *testing.T) {
	dump := `APT::Architecture "amd64";
APT::Install-Recommends "true";
Dir::Cache "var/cache/apt";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://127.0.0.1:3142";
Acquire::http::Proxy::deb.debian.org "DIRECT";
Acquire::https::CaInfo "/etc/corp/ca.pem";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
`
	want := []setting{
		{"Acquire::http::Proxy", "http://127.0.0.1:3142"},
		{"Acquire::http::Proxy::deb.debian.org", "DIRECT"},
		{"Acquire::https::CaInfo", "/etc/corp/ca.pem"},
		{"Acquire::Check-Valid-Until", "false"},
		{"Acquire::http::Proxy-Auto-Detect", "/usr/bin/auto-apt-proxy"},
	}
	got := aptSettings(dump)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !got[4].isProxyProgram() || got[0].isProxyProgram() {
		t.Error("a program that finds the proxy is not told from a proxy")
	}
}

func TestPipsFilesAndVariablesBecomeVariables(t *testing.T) {
	files := []string{
		"[global]\nindex-url = https://one.test/simple\ncert = /etc/ca.pem\ntarget = /somewhere\n[list]\nformat = columns\n",
		"[install]\ntrusted-host =\n    one.test\n    two.test\n[global]\nindex_url: https://two.test/simple\n# timeout = 1\n",
	}
	got := pipEnvironment(files, []string{"PIP_TIMEOUT=99", "PIP_CERT=/other.pem", "PIP_TARGET=/x", "PIP_REQUIRE_VIRTUALENV=1", "HOME=/root"})
	want := map[string]string{
		"PIP_INDEX_URL": "https://two.test/simple", "PIP_TRUSTED_HOST": "one.test two.test",
		"PIP_TIMEOUT": "99", "PIP_CERT": "/other.pem",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestProxyVariablesAreFoundInBothCases(t *testing.T) {
	got := proxyVariables([]string{"http_proxy=http://p:1", "HTTPS_PROXY=http://p:2", "no_proxy=", "NOT_A_PROXY=1"})
	if want := map[string]string{"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
