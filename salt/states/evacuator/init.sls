{# Our own evacuator (patches/custom/toast-evacuator): computes beat, the nodes of the other roles watch, the first control node
   decides. Installed and configured everywhere; it runs where pillar.evacuator.enabled says so, and in scenarios. #}
{% from "map.jinja" import release, node, roles, first, settings, credentials, at_boot with context %}
{% import_yaml "evacuator/defaults.yaml" as defaults %}
{% set evacuator = settings("evacuator", defaults) | load_json %}
{% set computes, vantage_points = {}, {} %}
{% for name, other in pillar.nodes.items() %}
{% if "compute" in other.roles %}{% do computes.update({name: other.addresses.management}) %}{% endif %}
{% if "control" in other.roles or "network" in other.roles or "storage" in other.roles %}
{% do vantage_points.update({name: other.addresses.management}) %}
{% endif %}
{% endfor %}
{% set decider = first("control") %}
{% set processes = {} %}
{% if node.name in computes %}{% do processes.update({"beat": "this compute's heartbeat"}) %}{% endif %}
{% if node.name in vantage_points %}{% do processes.update({"watch": "a vantage point on computes"}) %}{% endif %}
{% if node.name == decider %}{% do processes.update({"decide": "what is done about a dead compute"}) %}{% endif %}
{% set config = {
    "node": node.name,
    "address": node.addresses.management,
    "key": pillar.secrets.evacuator,
    "beats_port": evacuator.beats_port,
    "views_port": evacuator.views_port,
    "computes": computes,
    "vantage_points": vantage_points,
    "decider": decider,
    "timing": evacuator.timing,
} %}
{% if node.name == decider %}
{% do config.update({
    "forced_down": "forced-down" in release.capabilities,
    "fence": {"url": pillar.fence, "secret": pillar.secrets.fence},
    "cloud": credentials("nova") | load_json,
}) %}
{% endif %}

/usr/lib/toast-evacuator/toast_evacuator:
  file.recurse:
    - source: salt://toast-evacuator/toast_evacuator
    - clean: true

/etc/toast-evacuator/config.json:
  file.serialize:
    - dataset: {{ config | json }}
    - serializer: json
    - mode: "0600"
    - makedirs: true
    - show_changes: false

{% for process, description in processes.items() %}
{% set unit = "toast-evacuator-" ~ process %}
/etc/systemd/system/{{ unit }}.service:
  file.managed:
    - source: salt://evacuator/files/unit.service.jinja
    - template: jinja
    - mode: "0644"
    - context:
        process: {{ process }}
        description: {{ description }}

{% if evacuator.enabled %}
{{ at_boot(unit ~ ".service", "/etc") }}

{{ unit }}:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/{{ unit }}.service
    - watch:
      - file: /etc/systemd/system/{{ unit }}.service
      - file: /etc/toast-evacuator/config.json
      - file: /usr/lib/toast-evacuator/toast_evacuator
{% else %}
{{ unit }}:
  service.dead:
    - enable: false
{% endif %}
{% endfor %}
