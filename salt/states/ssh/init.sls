{# One key of the environment: every node's host key, and what root and nova use between nodes. #}
{% from "ssh/map.jinja" import key_of with context %}

/etc/ssh/ssh_host_ed25519_key:
  file.managed:
    - contents_pillar: secrets:ssh_private_key
    - mode: "0600"
    - show_changes: false

/etc/ssh/sshd_config.d/toastdev.conf:
  file.managed:
    - source: salt://ssh/files/sshd.conf
    - mode: "0644"

# With one host key for all nodes, every name and address is known beforehand.
/etc/ssh/ssh_known_hosts:
  file.managed:
    - contents: "* {{ pillar.secrets.ssh_public_key }}"
    - mode: "0644"

{{ key_of("root", "/root") }}

ssh:
  service.running:
    - enable: true
    - watch:
      - file: /etc/ssh/ssh_host_ed25519_key
      - file: /etc/ssh/sshd_config.d/toastdev.conf
