include:
  - node.install

/usr/lib/toastdev/once-answers:
  file.managed:
    - source: salt://node/files/once-answers
    - mode: "0755"
    - makedirs: true

# Before any service starts.
/etc/systemd/system.conf.d/toastdev-python.conf:
  file.managed:
    - source: salt://node/files/python.conf
    - makedirs: true
  cmd.run:
    - name: systemctl daemon-reload
    - onchanges:
      - file: /etc/systemd/system.conf.d/toastdev-python.conf
