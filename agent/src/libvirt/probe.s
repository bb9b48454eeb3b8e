# The boot sector of the probe of KVM, for `acceleration.rs`, which holds it assembled (a test compares the two).
#
# It goes where a KVM that only seems to work hangs: from real mode straight into 64-bit mode with paging, then counts long enough that
# a processor which is emulated one instruction at a time does not end in time. Then it writes 0x10 to QEMU's exit port.
#
# Assemble: as --64 -o probe.o probe.s && objcopy -O binary -j .text probe.o probe.bin

.intel_syntax noprefix
.code16
.org 0
start:
  cli                                # the BIOS has put us at 0000:7c00
  cld
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov di, 0x1000                     # three page tables, cleared: 0x1000, 0x2000, 0x3000
  mov cx, 0xc00
  xor eax, eax
  rep stosd
  mov word ptr ds:[0x1000], 0x2003
  mov word ptr ds:[0x2000], 0x3003
  mov word ptr ds:[0x3000], 0x0083  # the first 2 MiB as one page
  mov ax, 0x1000
  mov cr3, eax
  mov eax, cr4
  or al, 0x20                        # physical address extension
  mov cr4, eax
  mov ecx, 0xc0000080
  rdmsr
  or ah, 1                           # long mode, in the register EFER
  wrmsr
  lgdt [0x7c00 + gdtr - start]
  mov eax, cr0
  or eax, 0x80000001                 # protection and paging
  mov cr0, eax
  .byte 0xea                         # far jump into the 64-bit segment
  .word 0x7c00 + long - start
  .word 8
.code64
long:
  mov ecx, 0x4000000
1: dec ecx
  jnz 1b
  mov al, 0x10
  out 0xf4, al
2: hlt
  jmp 2b
gdtr:
  .word 15
  .long 0x7c00 + gdt - start
gdt:
  .quad 0
  .quad 0x00209a0000000000
