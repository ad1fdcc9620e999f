"""First-party components, registered the way any plugin registers its own."""

from __future__ import annotations

from sslrob.hookspecs import Register, hookimpl


@hookimpl
def register_attacks(register: Register) -> None:
    register("apgd", "sslrob.builtin.apgd:APGD")
    register("apgd-t", "sslrob.builtin.apgd:TargetedAPGD")
    register("autoattack", "sslrob.builtin.autoattack:AutoAttack")
    register("carlini-wagner", "sslrob.builtin.carlini_wagner:CarliniWagner")
    register("corruption", "sslrob.builtin.corruption:Corruption")
    register("data-free", "sslrob.builtin.data_free:DataFree")
    register("ddn", "sslrob.builtin.minimal:DDN")
    register("deepfool", "sslrob.builtin.deepfool:DeepFool")
    register("deepfool-uap", "sslrob.builtin.deepfool_uap:DeepFoolUAP")
    register("eot-pgd", "sslrob.builtin.gradient:EOTPGD")
    register("fab", "sslrob.builtin.fab:FAB")
    register("fab-t", "sslrob.builtin.fab:TargetedFAB")
    register("fgsm", "sslrob.builtin.gradient:FGSM")
    register("fmn", "sslrob.builtin.minimal:FMN")
    register("hop-skip-jump", "sslrob.builtin.hop_skip_jump:HopSkipJump")
    register("momentum", "sslrob.builtin.momentum:Momentum")
    register("noise", "sslrob.builtin.noise:Noise")
    register("noise-gaussian", "sslrob.builtin.noise:GaussianNoise")
    register("noise-sign", "sslrob.builtin.noise:SignNoise")
    register("pgd", "sslrob.builtin.gradient:PGD")
    register("rs-fgsm", "sslrob.builtin.gradient:RSFGSM")
    register("sea", "sslrob.builtin.sea:SEA")
    register("spsa", "sslrob.builtin.spsa:SPSA")
    register("square", "sslrob.builtin.square:Square")
    register("uap", "sslrob.builtin.universal:UAP")


@hookimpl
def register_tasks(register: Register) -> None:
    register("classification", "sslrob.builtin.classification:Classification")
