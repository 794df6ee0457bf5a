package source

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// What is odd in it stands in a setup.cfg of OpenStack's: nova's of Kilo has a comment in the middle of its entry points.
const setupCfg = `[metadata]
name = nova
project_urls:
    Source = https://opendev.org/openstack/nova

[entry_points]
console_scripts =
    nova-api = nova.cmd.api:main

    # between
# NOTE: disabled
#    pci = nova.api.pci:Pci
    nova-compute = nova.cmd.compute:main [libvirt]
nova.filters = all%(x)s = nova:100% # and ; more \
`

func TestASetupCfgIsReadAsPythonReadsIt(t *testing.T) {
	text := setupCfg
	want := Settings{
		"metadata":     {"name": "nova", "project_urls": "Source = https://opendev.org/openstack/nova"},
		"entry_points": {"console_scripts": "nova-api = nova.cmd.api:main\nnova-compute = nova.cmd.compute:main [libvirt]", "nova.filters": "all%(x)s = nova:100% # and ; more \\"},
	}
	for i := range 1000 { // more than a page of memory
		line := fmt.Sprintf("point_%d = nova.point:Point%d", i, i)
		text += "    " + line + "\n"
		want["entry_points"]["nova.filters"] += "\n" + line
	}
	for ends, text := range map[string]string{"\n": text, "\r\n": strings.ReplaceAll(text, "\n", "\r\n")} {
		got, err := ParseSettings([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, values := range got {
			for key, value := range values {
				var lines []string
				for line := range strings.Lines(value) {
					lines = append(lines, strings.TrimSpace(line))
				}
				values[key] = strings.TrimSpace(strings.Join(lines, "\n"))
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %.1000v", ends, got)
		}
	}
	if _, err := ParseSettings([]byte("[metadata\nname = nova\n")); err == nil {
		t.Error("a section that is not closed")
	}
}

func TestEntryPointsAreReadIndentedOrNot(t *testing.T) {
	got, err := ParseEntryPoints([]byte("[console_scripts]\na = b.c:main\n  d = e:f [g]\n\n[h.i]\nj:k = l\n[empty]\n"))
	if want := (Settings{"console_scripts": {"a": "b.c:main", "d": "e:f [g]"}, "h.i": {"j:k": "l"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
