{% from "map.jinja" import install with context %}
{{ install("libvirt") }}
