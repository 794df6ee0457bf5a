package openstack

import (
	"strings"
)

// Openrc is auth as a shell's environment for OpenStack clients: lines to be evaluated.
func Openrc(auth Auth) string {
	var b strings.Builder
	for _, variable := range Environ(auth) {
		name, value, _ := strings.Cut(variable, "=")
		b.WriteString("export " + name + "=" + quoted(value) + "\n")
	}
	// Another cloud's variables, left in the shell, would contradict these.
	b.WriteString("unset OS_CLOUD OS_TOKEN OS_PROJECT_ID OS_TENANT_ID OS_TENANT_NAME OS_USER_ID OS_DOMAIN_ID OS_DOMAIN_NAME OS_SYSTEM_SCOPE OS_CACERT\n")
	return b.String()
}

// Environ is auth as a process's environment: NAME=value.
func Environ(auth Auth) []string {
	return []string{
		"OS_AUTH_TYPE=password",
		"OS_AUTH_URL=" + auth.URL,
		"OS_IDENTITY_API_VERSION=3",
		"OS_REGION_NAME=" + auth.Region,
		"OS_INTERFACE=public",
		"OS_ENDPOINT_TYPE=publicURL", // the older clients' word for the same
		"OS_USERNAME=" + auth.User,
		"OS_PASSWORD=" + auth.Password,
		"OS_USER_DOMAIN_NAME=" + auth.domain(),
		"OS_PROJECT_NAME=" + auth.Project,
		"OS_PROJECT_DOMAIN_NAME=" + auth.domain(),
		"OS_VOLUME_API_VERSION=3",
		"OS_IMAGE_API_VERSION=2",
	}
}

// quoted is a word of the shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
