{% from "install.jinja" import install with context %}
{{ install("neutron") }}
{# An image has this one change to what Debian packages; the patch says why. What is laid over a node's code goes on top. #}
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
  cmd.run:
    - name: py3compile -p python3-neutron && py3compile -p python3-neutron-lib
    - onchanges:
      - file: neutron-selectin
{% endif %}
