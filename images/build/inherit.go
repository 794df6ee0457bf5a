package build

import (
	"bufio"
	"path"
	"regexp"
	"slices"
	"strings"
)

// What a build inherits of the host: Debian's mirror, APT's and pip's ways to the network. Everything here is pure; the
// reading is in host.go.

// source is a package source of APT's, in the one-line form's terms.
type source struct {
	Options    map[string]string // trusted, signed-by, ...
	URI        string
	Suite      string
	Components []string
}

func (s source) String() string {
	line := "deb "
	var options []string
	for name, value := range s.Options {
		options = append(options, name+"="+value)
	}
	if slices.Sort(options); len(options) > 0 {
		line += "[" + strings.Join(options, " ") + "] "
	}
	return line + s.URI + " " + s.Suite + " " + strings.Join(s.Components, " ")
}

// The names by which a suite of Debian's goes, and what may follow them.
var debianSuite = regexp.MustCompile(`^(?:buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)(|-updates|-security|/updates)$`)

// keptOptions are the options of a source that say how to reach and trust it.
var keptOptions = []string{"allow-insecure", "allow-weak", "check-date", "check-valid-until", "inrelease-path", "signed-by", "trusted"}

// publicSources are Debian's own, for a suite.
func publicSources(suite string) []source {
	main := []string{"main"}
	return []source{
		{URI: "http://deb.debian.org/debian", Suite: suite, Components: main},
		{URI: "http://deb.debian.org/debian", Suite: suite + "-updates", Components: main},
		{URI: "http://deb.debian.org/debian-security", Suite: suite + "-security", Components: main},
	}
}

// debianSources is where this host gets Debian from, turned to another suite: the mirrors among its sources (files by
// their path: *.list in the one-line form, *.sources in deb822's), or Debian's own where the host is no Debian.
//
// A source is taken for a Debian mirror when its suite is one of Debian's, it has the component main, and its address
// ends as a mirror's does (…/debian, …/debian-security, …/debian-remote) or is at debian.org: other archives, too,
// name their suites after Debian's.
func debianSources(files map[string]string, suite string) []source {
	var all []source
	for _, name := range sortedKeys(files) {
		if path.Ext(name) == ".sources" {
			all = append(all, parseDeb822(files[name])...)
		} else {
			all = append(all, parseOneLine(files[name])...)
		}
	}
	var found []source
	for _, s := range all {
		match := debianSuite.FindStringSubmatch(s.Suite)
		if match == nil || !slices.Contains(s.Components, "main") || !isMirror(s.URI) {
			continue
		}
		pocket := match[1]
		if pocket == "/updates" { // until buster
			pocket = "-security"
		}
		s.Suite, s.Components = suite+pocket, []string{"main"}
		if !slices.ContainsFunc(found, func(f source) bool { return f.URI == s.URI && f.Suite == s.Suite }) {
			found = append(found, s)
		}
	}
	if !slices.ContainsFunc(found, func(s source) bool { return s.Suite == suite }) {
		return publicSources(suite)
	}
	return found
}

func isMirror(uri string) bool {
	rest := uri[strings.Index(uri, "://")+1:]
	host, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	return host == "debian.org" || strings.HasSuffix(host, ".debian.org") || strings.HasPrefix(strings.ToLower(path.Base(uri)), "debian")
}

func parseOneLine(text string) []source {
	var sources []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), "deb ")
		if !ok {
			continue
		}
		s := source{Options: map[string]string{}}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, option := range strings.Fields(options) {
				name, value, _ := strings.Cut(option, "=")
				s.option(name, value)
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.URI, s.Suite, s.Components = strings.TrimSuffix(fields[0], "/"), fields[1], fields[2:]
		sources = append(sources, s)
	}
	return sources
}

func parseDeb822(text string) []source {
	var sources []source
	stanza, last := map[string]string{}, ""
	flush := func() {
		s := source{Options: map[string]string{}, Components: strings.Fields(stanza["components"])}
		for name, value := range stanza {
			s.option(name, value)
		}
		if stanza["enabled"] != "no" && slices.Contains(strings.Fields(stanza["types"]), "deb") {
			for _, uri := range strings.Fields(stanza["uris"]) {
				for _, suite := range strings.Fields(stanza["suites"]) {
					each := s
					each.URI, each.Suite = strings.TrimSuffix(uri, "/"), suite
					sources = append(sources, each)
				}
			}
		}
		stanza, last = map[string]string{}, ""
	}
	scan := bufio.NewScanner(strings.NewReader(text))
	for scan.Scan() {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			stanza[last] += "\n" + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(name)
			stanza[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return sources
}

func (s source) option(name, value string) {
	name = strings.ToLower(name)
	// A key in the source itself is of no use here; Debian's own keys are known without.
	if slices.Contains(keptOptions, name) && !strings.Contains(value, "\n") {
		s.Options[name] = value
	}
}

// setting is one of APT's, as `apt-config dump` prints it.
type setting struct{ Name, Value string }

// aptSettings is the part of `apt-config dump` that says how to reach mirrors: proxies, certificates, retries.
func aptSettings(dump string) []setting {
	prefixes := []string{"acquire::http::", "acquire::https::", "acquire::ftp::", "acquire::socks::"}
	exact := []string{"acquire::retries", "acquire::check-valid-until", "acquire::check-date", "acquire::max-validtime",
		"acquire::forceipv4", "acquire::forceipv6", "acquire::allowinsecurerepositories", "acquire::allowweakrepositories",
		"acquire::allowdowngradetoinsecurerepositories", "apt::get::allowunauthenticated"}
	var settings []setting
	for line := range strings.Lines(dump) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(value, ";"), `"`), `"`)
		lower := strings.ToLower(name)
		kept := slices.Contains(exact, lower) || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
		if ok && kept && value != "" {
			settings = append(settings, setting{name, value})
		}
	}
	return settings
}

// isProxyProgram says whether a setting names a program of the host's that finds the proxy.
func (s setting) isProxyProgram() bool {
	last := strings.ToLower(s.Name[strings.LastIndex(s.Name, ":")+1:])
	return last == "proxy-auto-detect" || last == "proxyautodetect"
}

// pipOptions are the options of pip's that say how to reach an index.
var pipOptions = []string{"cert", "client-cert", "default-timeout", "disable-pip-version-check", "extra-index-url", "find-links",
	"index-url", "no-index", "proxy", "retries", "timeout", "trusted-host"}

// pipEnvironment is pip's configuration as variables: configuration files in pip's order, then the environment, later
// ones winning.
func pipEnvironment(files []string, environ []string) map[string]string {
	env := map[string]string{}
	set := func(name, value string) {
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if slices.Contains(pipOptions, name) && value != "" {
			env["PIP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = value
		}
	}
	for _, text := range files {
		// pip reads [install] over [global].
		for _, wanted := range []string{"global", "install"} {
			section, name, value := "", "", ""
			for line := range strings.Lines(text + "\n[end]\n") {
				trimmed := strings.TrimSpace(line)
				switch {
				case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
				case line[0] == ' ' || line[0] == '\t':
					value = strings.TrimSpace(value + " " + trimmed)
				default:
					if section == wanted && name != "" {
						set(name, value)
					}
					name = ""
					if trimmed[0] == '[' {
						section = strings.Trim(trimmed, "[]")
						continue
					}
					if i := strings.IndexAny(trimmed, "=:"); i > 0 {
						name, value = strings.TrimSpace(trimmed[:i]), strings.TrimSpace(trimmed[i+1:])
					}
				}
			}
		}
	}
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PIP_") {
			set(strings.TrimPrefix(name, "PIP_"), value)
		}
	}
	return env
}

// proxyVariables are the variables of environ that name proxies.
func proxyVariables(environ []string) map[string]string {
	names := []string{"all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy"}
	env := map[string]string{}
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); value != "" && slices.Contains(names, strings.ToLower(name)) {
			env[name] = value
		}
	}
	return env
}
