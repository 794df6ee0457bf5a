include:
  - client.install

# The region's admin, for the clients on this node.
/root/openrc:
  file.managed:
    - mode: '0600'
    - show_changes: false
    - contents: |
        export OS_AUTH_URL=http://{{ pillar.api.name }}:5000/v3
        export OS_IDENTITY_API_VERSION=3
        export OS_INTERFACE=internal
        export OS_REGION_NAME={{ pillar.region }}
        export OS_USERNAME=admin
        export OS_PASSWORD={{ pillar.secrets.admin | quote }}
        export OS_PROJECT_NAME=admin
        export OS_USER_DOMAIN_NAME=Default
        export OS_PROJECT_DOMAIN_NAME=Default
