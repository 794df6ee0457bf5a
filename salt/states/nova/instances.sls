{# Instances live on the NAS, so that another compute can take over those of one that is gone. #}
{% from "map.jinja" import at_boot with context %}
{% from "nas/map.jinja" import nas, host with context %}

include:
  - nas.client
  - nova.install

/etc/systemd/system/var-lib-nova-instances.mount:
  file.managed:
    - source: salt://nova/files/instances.mount.jinja
    - template: jinja
    - mode: "0644"
    - context:
        share: {{ host }}:{{ nas.root }}/nova

{{ at_boot("var-lib-nova-instances.mount", "/etc") }}

var-lib-nova-instances.mount:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/var-lib-nova-instances.mount
      - file: /sbin/mount.nfs
      - sls: ssh
      - file: /etc/systemd/system/var-lib-nova-instances.mount
