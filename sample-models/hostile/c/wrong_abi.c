/* Note and table are of version 99; with HONEST_NOTE the table only, which is found out after loading. */
#include "hostile.h"

#ifdef HONEST_NOTE
BATON_NOTE("hostile wrong_table_abi");
#else
/* BATON_NOTE with another version. */
__asm__(".pushsection .note.baton,\"a\",@note\n"
        ".balign 4\n.long 6\n.long 64\n.long 1\n.asciz \"Baton\"\n.balign 4\n"
        ".long 99\n1: .asciz \"hostile wrong_abi\"\n.zero 60-(.-1b)\n.popsection\n");
#endif

const baton_api baton_model = {99, sizeof(baton_api), 0, create, describe, run_well, destroy};
