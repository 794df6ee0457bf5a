{% from "map.jinja" import at_boot with context %}
{% from "nas/map.jinja" import nas with context %}

include:
  - nas.install

{% for export, owner in nas.exports.items() %}
{{ nas.root }}/{{ export }}:
  file.directory:
    - user: {{ owner }}
    - group: {{ owner }}
    - mode: "0755"
    - require_in:
      - service: nfs-ganesha
{% endfor %}

/etc/ganesha/ganesha.conf:
  file.managed:
    - source: salt://nas/files/ganesha.conf.jinja
    - template: jinja
    - mode: "0644"
    - context:
        nas: {{ nas | json }}

/etc/systemd/system/nfs-ganesha.service.d/toastdev.conf:
  file.managed:
    - source: salt://nas/files/ganesha.service.conf
    - mode: "0644"
    - makedirs: true

{{ at_boot("nfs-ganesha.service") }}

nfs-ganesha:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/nfs-ganesha.service
    - watch:
      - file: /etc/ganesha/ganesha.conf
      - file: /etc/systemd/system/nfs-ganesha.service.d/toastdev.conf
