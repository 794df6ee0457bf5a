include:
  - node.install
