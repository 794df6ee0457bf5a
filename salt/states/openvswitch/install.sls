{% from "install.jinja" import install with context %}
{{ install("openvswitch") }}
