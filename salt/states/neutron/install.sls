{% from "install.jinja" import install with context %}
{{ install("neutron") }}
{# An image has these changes to what Debian packages; each patch says why. What is laid over a node's code goes on top. #}
{% if pillar.get('baking') and pillar.release.name == 'zed' %}
{% set patches = ['selectin', 'stale-flows'] %}
include:
  - node.install
{% for patch in patches %}
neutron-{{ patch }}:
  file.patch:
    - name: /usr/lib/python3/dist-packages
    - source: salt://neutron/files/{{ patch }}.patch
    - strip: 1
    - require:
      - pkg: node-packages
      - pkg: neutron-packages
{% endfor %}
neutron-compile:
  cmd.run:
    - name: py3compile -p python3-neutron && py3compile -p python3-neutron-lib
    - onchanges:
{%- for patch in patches %}
      - file: neutron-{{ patch }}
{%- endfor %}
{% endif %}
