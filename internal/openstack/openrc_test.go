package openstack

import (
	"os/exec"
	"strings"
	"testing"
)

func TestOpenrcSurvivesTheShellWhateverThePassword(t *testing.T) {
	auth := Auth{URL: "http://172.30.0.5:5000/v3", Region: "kr1", User: "admin", Project: "demo", Password: `it's "$HOME" \ and ` + "`id`"}
	out, err := exec.Command("sh", "-c", Openrc(auth)+`printf '%s|%s|%s|%s' "$OS_PASSWORD" "$OS_AUTH_URL" "$OS_PROJECT_NAME" "$OS_USER_DOMAIN_NAME"`).CombinedOutput()
	if want := auth.Password + "|" + auth.URL + "|demo|Default"; err != nil || string(out) != want {
		t.Errorf("got %s (%v), want %s", out, err, want)
	}
	for line := range strings.Lines(Openrc(auth)) {
		if !strings.HasPrefix(line, "export OS_") && !strings.HasPrefix(line, "unset OS_") {
			t.Errorf("not a line for a shell's evaluation: %s", line)
		}
	}
}
