{% from "install.jinja" import install with context %}
{{ install("neutron") }}
{# An image has these changes to what Debian packages; each patch says why. What is laid over a node's code goes on top. #}
{% if pillar.get('baking') and pillar.release.name == 'zed' %}
include:
  - node.install

neutron-selectin:
  file.patch:
    - name: /usr/lib/python3/dist-packages
    - source: salt://neutron/files/selectin.patch
    - strip: 1
    - require:
      - pkg: node-packages
      - pkg: neutron-packages

neutron-stale-flows:
  file.patch:
    - name: /usr/lib/python3/dist-packages
    - source: salt://neutron/files/stale-flows.patch
    - strip: 1
    - require:
      - pkg: node-packages
      - pkg: neutron-packages

neutron-compile:
  cmd.run:
    - name: py3compile -p python3-neutron && py3compile -p python3-neutron-lib
    - onchanges:
      - file: neutron-selectin
      - file: neutron-stale-flows
{% endif %}
