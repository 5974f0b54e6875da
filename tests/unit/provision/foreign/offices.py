"""Project files of other systems, as their own documentation shows them, with parties of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLARA = """
name: Project1
config_folder: config
he:
  lib: tenseal
  config: {poly_modulus_degree: 8192, coeff_mod_bit_sizes: [60, 40, 40], scale_bits: 40, scheme: CKKS}
server:
  org: nvidia
  cn: fl.example.org
  fed_learn_port: 8002
  admin_port: 8003
  admin_storage: transfer
  min_num_clients: 3
  max_num_clients: 100
  auth: true
fl_clients:
  - {org: org1, client_name: client1}
  - {org: org2, client_name: client3}
  - {org: Secure, client_name: client4}
admin_clients:
  - {org: nvidia, email: admin@example.org}
  - {org: org1, email: it@org1.example}
  - {org: org1, email: own@org1.example}
  - {org: org2, email: research@org2.example}
  - {org: Secure, email: it@secure.example}
  - {org: org2, email: nobody@org2.example}
"""
LEAD = {"train_all": True, "view_all": True, "deploy_self": True, "deploy_all": True, "operate_all": True}
AUTHZ: dict[str, Any] = {
    "version": "1.0",
    "roles": {"super": "all", "lead_researcher": "", "site_researcher": "", "lead_it": "", "only4secure": "no uploads"},
    "groups": {
        "relaxed": {"desc": "r", "rules": {"allow_byoc": True, "allow_custom_datalist": True}},
        "strict": {"desc": "s", "rules": {"allow_byoc": False}},
        "general": {
            "desc": "g",
            "role_rights": {
                "super": {},
                "lead_researcher": LEAD,
                "site_researcher": {"train_self": True, "deploy_self": True, "view_self": True},
                "lead_it": {"operate_all": True, "view_all": True},
            },
        },
        "Secure": {
            "role_rights": {"lead_researcher": {"upload_mmar": False}, "only4secure": {"train_self": True, "deploy_self": True}}
        },
    },
    "users": {
        "admin@example.org": {"org": "nvidia", "roles": ["super"]},
        "it@org1.example": {"org": "org1", "roles": ["lead_it"]},
        "own@org1.example": {"org": "org1", "roles": ["site_researcher"]},
        "research@org2.example": {"org": "org2", "roles": ["lead_researcher"]},
        "it@secure.example": {"org": "Secure", "roles": ["only4secure"]},
    },
    "orgs": {"nvidia": ["general"], "org1": ["relaxed", "general"], "org2": ["strict", "general"], "Secure": ["relaxed", "Secure"]},
    "sites": {"server": "nvidia", "client1": "org1", "client3": "org2", "client4": "Secure"},
}
FLARE = """
api_version: 3
name: fed_policy
description: an example
participants:
  - name: server1
    type: server
    org: org_a
    default_host: fl.example.org
    host_names: [fl.example.org, 10.0.0.7]
    fed_learn_port: 8002
  - {name: site_a, type: client, org: org_a, enable_byoc: true}
  - {name: site_b, type: client, org: org_b}
  - {name: super@a.org, type: admin, org: org_a, role: project_admin}
  - {name: admin@a.org, type: admin, org: org_a, role: org_admin}
  - {name: lead@b.org, type: admin, org: org_b, role: lead}
  - {name: user@b.org, type: admin, org: org_b, role: member}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args: {template_file: master_template.yml}
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {config_folder: config, overseer_agent: {path: nvflare.ha.dummy_overseer_agent.DummyOverseerAgent}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.he.HEBuilder
    args: {poly_modulus_degree: 8192}
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
FLARE_2_0 = """
api_version: 2
name: secure_project
participants:
  - {name: localhost, type: server, org: nvidia, fed_learn_port: 8002, admin_port: 8003}
  - {name: site-1, type: client, org: nvidia}
  - {name: admin@nvidia.example, type: admin, org: nvidia, roles: [super]}
  - {name: lead@nvidia.example, type: admin, org: nvidia, roles: [lead_researcher]}
builders:
  - path: nvflare.lighter.impl.auth_policy.AuthPolicyBuilder
    args:
      orgs: {nvidia: [relaxed]}
      roles: {super: super user of system, lead_researcher: leads}
      groups:
        relaxed:
          desc: org group with relaxed policies
          rules: {allow_byoc: true, allow_custom_datalist: true}
          role_rights: {lead_researcher: {train_all: true, deploy_all: true}}
      disabled: false
"""
PERMISSIONS = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": "any",
        "org_admin": {"submit_job": "none", "manage_job": "o:submitter", "view": "any", "operate": "o:site", "byoc": "none"},
        "lead": {
            "submit_job": "any",
            "manage_job": "n:submitter",
            "download_job": "n:submitter",
            "operate": "o:site",
            "ls": "o:site",
        },
        "member": {"view": ["o:site", "n:submitter"], "submit_job": "none"},
    },
}


def place(folder: Path, project: str, authz: object = None, *, name: str = "authz_config.json") -> Path:
    """The project file, and rights beside it."""
    path = folder / "project.yml"
    path.write_text(project)
    if authz is not None:
        (folder / name).write_text(json.dumps(authz))
    return path
