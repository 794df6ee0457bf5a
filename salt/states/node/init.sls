include:
  - node.install

/usr/lib/toastdev/once-answers:
  file.managed:
    - source: salt://node/files/once-answers
    - mode: "0755"
    - makedirs: true
